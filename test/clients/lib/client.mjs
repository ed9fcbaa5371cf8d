// One XMPP user: Strophe.js behind promises. Every wait has a deadline and says what it waited for.

import { closePool, cutPool, openPool, unloadPool } from './browser.mjs';
// After browser.mjs: Strophe looks for the globals that it makes.
import { $iq, $msg, $pres, Strophe } from 'strophe.js';

const { Status } = Strophe;
const STATUS_NAMES = Object.fromEntries(Object.entries(Status).map(([name, value]) => [value, name.toLowerCase()]));
const MECHANISMS = {
  plain: [Strophe.SASLPlain],
  'scram-sha-1': [Strophe.SASLSHA1],
  'scram-sha-256': [Strophe.SASLSHA256],
  'scram-sha-512': [Strophe.SASLSHA512],
  anonymous: [Strophe.SASLAnonymous],
};
// Any SCRAM: the server's list decides, the strongest one is taken.
MECHANISMS.scram = [Strophe.SASLSHA1, Strophe.SASLSHA256, Strophe.SASLSHA384, Strophe.SASLSHA512];

export const mechanismNames = Object.keys(MECHANISMS);

/** What Strophe complains of: a run that fails shows it, a good one has no use for it. */
export const stropheLog = [];
const KEPT_LOG_LINES = 200;
// Strophe 5 writes to the console and nowhere else; our own programs write to their streams.
Strophe.setLogLevel(Strophe.LogLevel.WARN);
for (const level of ['warn', 'error']) {
  console[level] = (...parts) => {
    stropheLog.push(parts.join(' '));
    if (stropheLog.length > KEPT_LOG_LINES) stropheLog.shift();
  };
}

/** What went wrong with a client, in one line. */
export class ClientError extends Error {
  name = 'ClientError';
}

/** A promise that fails after `ms` with the words of what was waited for. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ClientError(`no ${what} within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export class Client {
  /**
   * url: BOSH (http, https) or WebSocket (ws, wss). user: the node part, or '' for an anonymous login.
   * deadline: milliseconds for each single step. wait, hold: the BOSH session's own. keepalive: the session is kept in
   * sessionStorage, for restore().
   */
  constructor({ url, domain, user = '', password = '', resource = '', mechanism = 'scram', deadline = 15000,
    wait = 60, hold = 1, keepalive = false }) {
    if (!(mechanism in MECHANISMS)) {
      throw new ClientError(`unknown mechanism ${mechanism}: one of ${mechanismNames.join(', ')}`);
    }
    this.overHttp = /^https?:/.test(url);
    this.service = this.overHttp ? openPool(url) : url;
    this.name = user || 'anonymous';
    this.bareJid = user ? `${user}@${domain}` : domain;
    this.deadline = deadline;
    this.bosh = { wait, hold };
    this.password = password;
    this.loginJid = user && resource ? `${this.bareJid}/${resource}` : this.bareJid;
    this.listeners = new Set();
    this.statusListeners = new Set();
    this.status = 'new';
    this.connection = new Strophe.Connection(this.service, { mechanisms: MECHANISMS[mechanism], keepalive });
  }

  /** The full JID that the server gave. */
  get jid() {
    return this.connection.jid;
  }

  /** The SASL mechanism that was used, null before. */
  get mechanism() {
    return this.usedMechanism ?? null;
  }

  /** Calls back for each stanza that comes (a DOM element); returns the function that ends it. */
  onStanza(callback) {
    this.listeners.add(callback);
    return () => this.listeners.delete(callback);
  }

  /** Calls back with (name, reason) at each change of the connection's state. */
  onStatus(callback) {
    this.statusListeners.add(callback);
    return () => this.statusListeners.delete(callback);
  }

  /** Connects, authenticates and binds; the password goes to nobody but the server. May be called again later. */
  async login() {
    const failures = [];
    const connected = new Promise((resolve, reject) => {
      const end = this.onStatus((status, reason) => {
        const failed = status === 'connfail' || status === 'authfail' || status === 'error';
        if (failed) failures.push(`${status} ${reason ?? ''}`);
        // After a refused password Strophe waits for the end of a stream that the server may keep open.
        if (!['connected', 'disconnected', 'authfail'].includes(status)) return;
        end();
        if (status === 'connected') resolve();
        else reject(new ClientError(`${this.name}: login failed: ${[...new Set(failures)].join(', ').trim() || reason || 'closed'}`));
      });
    });
    connected.catch(() => {});
    this.connection.reset();
    this.connection.connect(this.loginJid, this.password, (status, reason) => this.#changed(status, reason),
      this.bosh.wait, this.bosh.hold);
    try {
      await within(this.deadline, `login of ${this.name}`, connected);
    } catch (error) {
      this.drop();
      throw error;
    }
  }

  /** Goes on with the BOSH session that a page before this one has kept in sessionStorage. */
  restore() {
    this.connection.restore(this.bareJid, (status, reason) => this.#changed(status, reason), this.bosh.wait, this.bosh.hold);
    this.connection.flush();
  }

  /**
   * The page goes: nothing of Strophe runs any more. Calls back with the text of each answer that comes nevertheless; the
   * promise is kept when none can come any more. `cut`: see unloadPool.
   */
  unload(cut, late) {
    const { connection } = this;
    connection.connect_callback = null;
    clearTimeout(connection._idleTimeout);
    connection.connected = false;
    this.status = 'disconnected';
    return unloadPool(this.service, cut, late);
  }

  /** Its next BOSH request is written. */
  nextRequest() {
    return within(this.deadline, `request of ${this.name}`, new Promise((resolve) => {
      this.connection.rawOutput = () => {
        this.connection.rawOutput = null;
        resolve();
      };
    }));
  }

  /** Sends a presence, available unless told. */
  presence(attributes = {}) {
    this.connection.send($pres(attributes));
    this.connection.flush();
  }

  /** Sends a chat message; returns its id. */
  message(to, body, id = this.connection.getUniqueId('message')) {
    this.connection.send($msg({ to, type: 'chat', id }).c('body').t(body));
    this.connection.flush();
    return id;
  }

  /** Enters a room, which is made if it is not there. */
  join(room, nick) {
    this.connection.send($pres({ to: `${room}/${nick}` }).c('x', { xmlns: Strophe.NS.MUC }));
    this.connection.flush();
  }

  /** Says something in a room. */
  say(room, body) {
    this.connection.send($msg({ to: room, type: 'groupchat' }).c('body').t(body));
    this.connection.flush();
  }

  /** Asks a question (an iq builder) and gives the result element. */
  ask(iq, what = 'answer') {
    return within(this.deadline, `${what} for ${this.name}`, new Promise((resolve, reject) => {
      this.connection.sendIQ(iq, resolve, (stanza) =>
        reject(new ClientError(`${this.name}: ${what} refused: ${stanza ? Strophe.serialize(stanza) : 'no answer'}`)));
      this.connection.flush();
    }));
  }

  /** The roster as [{jid, subscription}]. */
  async roster() {
    const result = await this.ask($iq({ type: 'get' }).c('query', { xmlns: 'jabber:iq:roster' }), 'roster');
    return [...result.getElementsByTagName('item')].map((item) => ({
      jid: item.getAttribute('jid'),
      subscription: item.getAttribute('subscription'),
    }));
  }

  /** A round trip to the server: milliseconds. */
  async ping() {
    const start = performance.now();
    const to = Strophe.getDomainFromJid(this.connection.jid);
    await this.ask($iq({ type: 'get', to }).c('ping', { xmlns: 'urn:xmpp:ping' }), 'ping').catch((error) => {
      // A server without mod_ping answers with an error stanza, which is a round trip as well.
      if (!/refused/.test(error.message)) throw error;
    });
    return performance.now() - start;
  }

  /** The first stanza from now on for which `test` is true. */
  next(what, test, ms = this.deadline) {
    let end;
    const found = new Promise((resolve) => {
      end = this.onStanza((stanza) => {
        if (test(stanza)) resolve(stanza);
      });
    });
    return within(ms, `${what} for ${this.name}`, found).finally(() => end());
  }

  /** Leaves as a client should: unavailable, end of stream, and waits until the connection is gone. */
  async disconnect() {
    if (this.status === 'disconnected') return;
    const gone = new Promise((resolve) => {
      const end = this.onStatus((status) => {
        if (status !== 'disconnected') return;
        end();
        resolve();
      });
    });
    this.connection.flush();
    this.connection.disconnect();
    try {
      await within(this.deadline, `end of the stream for ${this.name}`, gone);
    } finally {
      this.drop();
    }
  }

  /** Its connections break, with the answers that are on their way; the BOSH session goes on. */
  cutConnections() {
    cutPool(this.service);
  }

  /** Lets go of everything at once, without a word to the server. */
  drop() {
    // Strophe keeps its socket and its timer to itself: a dropped client must not hold the process.
    const { connection } = this;
    connection.connect_callback = null;
    clearTimeout(connection._idleTimeout);
    connection.connected = false;
    connection._proto.socket?.terminate?.();
    if (this.overHttp) {
      connection._proto._abortAllRequests();
      closePool(this.service);
    }
    this.status = 'disconnected';
  }

  #changed(status, reason) {
    const name = STATUS_NAMES[status] ?? String(status);
    this.status = name;
    if (status === Status.AUTHENTICATING) this.usedMechanism = this.connection._sasl_mechanism?.mechname ?? null;
    if (status === Status.CONNECTED || status === Status.ATTACHED) {
      this.usedMechanism = this.connection._sasl_mechanism?.mechname ?? this.usedMechanism;
      this.connection.addHandler((stanza) => this.#received(stanza), null, null, null, null, null);
    }
    for (const callback of [...this.statusListeners]) callback(name, reason ?? null);
  }

  #received(stanza) {
    for (const callback of [...this.listeners]) callback(stanza);
    return true;
  }
}

/** The text of a message's body, null when there is none. */
export function bodyOf(stanza) {
  return stanza.getElementsByTagName('body')[0]?.textContent ?? null;
}

/** The bare JID a stanza is from. */
export function fromOf(stanza) {
  return Strophe.getBareJidFromJid(stanza.getAttribute('from') ?? '');
}

/** The texts of all messages in a BOSH answer. */
export function bodiesOf(text) {
  const answer = new DOMParser().parseFromString(text, 'text/xml').documentElement;
  return [...answer.getElementsByTagName('message')].map(bodyOf).filter((body) => body !== null);
}
