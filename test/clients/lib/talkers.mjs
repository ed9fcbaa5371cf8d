// Users who write to each other all the time, by real libraries, and say of each message what has become of it. Told to whoever
// made them, by `tell(event, ...words)`:
//
//   online JID                the session is there, and takes messages
//   sent JID TO N             a message is handed to the library
//   confirmed JID TO N        the server has dealt with it: an <a/> of stream management, or the answer to a ping behind it
//   got JID FROM TO N R OK    a message has come, by the answer to request R (0 where there are none); OK is 0 for damaged text
//   bounced JID TO N          it has come back as an error
//   resuming JID              the connection is gone, the session perhaps not; then resumed JID, or offline
//   offline JID WHY           the session has ended: left, gave-up-STATUS, ended-CONDITION, refused
//   failed USER WHY           a login that failed
//
// A message is numbered for its two sessions; its text is made of the three and can be made anew.

import { client as xmppClient, xml } from '@xmpp/client';
import { Client, bodyOf, within } from './client.mjs';
// After client.mjs, which makes the globals that it looks for.
import { $iq, $pres } from 'strophe.js';

const RETRY = 1000;
const DEADLINE = 15_000;
const RESUME_DEADLINE = 6000;
/** Seconds: Strophe asks again after 1.1 times that, and waits 8 s at most between two attempts. */
const WAIT = 10;
/** Characters that a wrong framing or escaping would not leave as they are. */
const PATTERN = 'a<b>&"\'\u00e4\u20ac\u{1F600}z';

/** The text of a message: some kB now and then. */
function textOf(from, to, n) {
  const size = n % 50 === 0 ? 20_000 : (n * 37) % 400;
  return `${from} ${to} ${n} ${PATTERN.repeat(Math.ceil(size / PATTERN.length))}`;
}

class Talker {
  /** `random` gives numbers from 0 to 1, `generation` makes names of sessions unique. */
  constructor({ user, password, domain, url, generation, pause, random, tell }) {
    Object.assign(this, { user, password, domain, url, generation, pause, random, tell });
    this.sessions = 0;
    this.peers = [];
    this.wanted = true;
    this.reset();
  }

  reset() {
    this.jid = null;
    this.numbers = new Map();
    /** Handed to the library and not confirmed, the oldest first: [to, n]. */
    this.open = [];
  }

  get bare() {
    return `${this.user}@${this.domain}`;
  }

  nextResource() {
    this.sessions += 1;
    return `g${this.generation}-${this.sessions}`;
  }

  /** Logs in until it is there. */
  async start() {
    while (this.wanted && this.jid === null) {
      try {
        await this.login();
      } catch (error) {
        this.tell('failed', this.user, error.message.replaceAll(/\s+/g, '_'));
        await new Promise((resolve) => { setTimeout(resolve, RETRY); });
      }
    }
  }

  came(jid) {
    if (jid === this.jid) return;
    this.jid = jid;
    this.tell('online', jid);
    this.later();
  }

  later() {
    clearTimeout(this.timer);
    if (this.wanted) this.timer = setTimeout(() => this.talk(), this.pause * (0.5 + this.random()));
  }

  talk() {
    const others = this.peers.filter((peer) => peer !== this.jid);
    if (this.jid !== null && this.canSend() && others.length > 0) {
      this.say(others[Math.floor(this.random() * others.length)]);
    }
    this.later();
  }

  say(to) {
    const n = (this.numbers.get(to) ?? 0) + 1;
    this.numbers.set(to, n);
    this.tell('sent', this.jid, to, n);
    this.open.push([to, n]);
    this.send(to, textOf(this.jid, to, n));
  }

  /** The first `count` open messages are dealt with. */
  confirmed(count) {
    for (const [to, n] of this.open.splice(0, count)) this.tell('confirmed', this.jid, to, n);
  }

  /** A message in this session; an error is one of its own that came back. */
  received(type, from, body, request) {
    const [sender, to, n] = (body ?? '').split(' ', 3);
    if (type === 'error') {
      this.tell('bounced', this.jid, to, n);
      return;
    }
    this.tell('got', this.jid, from, to, n, request, sender === from && body === textOf(from, to, Number(n)) ? 1 : 0);
  }

  /** The session has ended; another one begins. */
  lost(why) {
    if (this.jid === null) return;
    this.tell('offline', this.jid, why);
    this.reset();
    if (this.wanted) setTimeout(() => this.start(), RETRY);
  }

  /** Says nothing more, waits until all is confirmed, and leaves in good order. */
  async leave() {
    this.wanted = false;
    clearTimeout(this.timer);
    if (this.jid === null) return;
    const jid = this.jid;
    await this.end();
    this.tell('offline', jid, 'left');
    this.jid = null;
  }

  /** Writes to itself, as soon as it can. */
  async probe() {
    while (this.jid !== null && !this.canSend()) await new Promise((resolve) => { setTimeout(resolve, 50); });
    if (this.jid !== null) this.say(this.jid);
  }

  quiet() {
    this.wanted = false;
    clearTimeout(this.timer);
  }
}

/** By BOSH, with Strophe.js and two connections. */
export class BoshTalker extends Talker {
  async login() {
    const fresh = new Client({
      url: this.url(), domain: this.domain, user: this.user, password: this.password, resource: this.nextResource(), wait: WAIT,
      deadline: DEADLINE,
    });
    const proto = fresh.connection._proto;
    let status = 0;
    let condition = null;
    let request = 0;
    // Which request an answer belongs to, and what the last error was, Strophe keeps to itself.
    const { _hitError: hitError, _onRequestStateChange: changed } = Object.getPrototypeOf(proto);
    proto._hitError = (code) => {
      status = code;
      hitError.call(proto, code);
    };
    proto._onRequestStateChange = (func, req) => {
      // Before it hands on what has come, it may send another request once more, and hears of that in between.
      const outer = request;
      request = req.rid;
      try {
        changed.call(proto, func, req);
      } finally {
        request = outer;
      }
    };
    await fresh.login();
    fresh.onStanza((stanza) => {
      if (stanza.tagName === 'message' && this.client === fresh) {
        this.received(stanza.getAttribute('type'), stanza.getAttribute('from'), bodyOf(stanza), request);
      }
    });
    fresh.onStatus((name, reason) => {
      if (reason) condition = reason;
      if (name !== 'disconnected' || this.client !== fresh) return;
      this.client = null;
      fresh.drop();
      // 404 is a word of the server, no answer or 5xx is none.
      const ended = status >= 400 && status < 500 ? status : condition;
      this.lost(ended && ended !== 'giving-up' ? `ended-${ended}` : `gave-up-${status}`);
    });
    this.client = fresh;
    this.pinging = false;
    // A message to a session that has gone is not for another one of its user.
    fresh.connection.send($pres().c('priority').t('-1'));
    this.came(fresh.jid);
  }

  canSend() {
    return this.client?.status === 'connected';
  }

  send(to, text) {
    this.client.message(to, text);
    this.ask();
  }

  /** One question at a time: what was sent before it is dealt with when it is answered. */
  ask() {
    if (this.pinging || this.open.length === 0) return;
    const asked = this.client;
    const count = this.open.length;
    this.pinging = true;
    const answered = () => {
      if (this.client !== asked) return;
      this.pinging = false;
      this.confirmed(count);
      this.ask();
    };
    asked.connection.sendIQ($iq({ type: 'get', to: this.domain }).c('ping', { xmlns: 'urn:xmpp:ping' }), answered, answered);
    asked.connection.flush();
  }

  /** Its TCP connections break, answers on their way with them. */
  cut() {
    this.client?.cutConnections();
  }

  async end() {
    const { client } = this;
    this.client = null;
    await client.disconnect();
  }
}

/** By WebSocket, with xmpp.js: a session outlives its connection by stream management. */
export class WebSocketTalker extends Talker {
  async login() {
    const fresh = xmppClient({
      service: this.url(), domain: this.domain, username: this.user, password: this.password, resource: this.nextResource(),
      timeout: DEADLINE,
    });
    const sm = fresh.streamManagement;
    fresh.reconnect.delay = 500;
    fresh.on('error', () => {});
    const current = () => this.client === fresh;
    // What comes together with the answer to the question for stream management it would not count.
    const enabled = new Promise((resolve) => { fresh.on('nonza', (nonza) => nonza.is('enabled') && setImmediate(resolve)); });
    fresh.on('nonza', (nonza) => {
      if (nonza.is('failed') && current()) this.give(fresh, 'refused');
    });
    fresh.on('disconnect', () => {
      // Of an attempt that broke off xmpp.js would still answer the challenge to the next one, and resume twice.
      fresh.listeners('nonza').filter((listener) => !lasting.includes(listener)).forEach((listener) => fresh.off('nonza', listener));
      if (current()) this.resuming(fresh);
    });
    sm.on('ack', (stanza) => stanza.is('message') && current() && this.confirmed(1));
    sm.on('resumed', () => {
      if (!current()) return;
      this.away = false;
      clearTimeout(this.stuck);
      this.tell('resumed', this.jid);
    });
    fresh.on('stanza', (stanza) => {
      if (stanza.is('message') && current()) {
        this.received(stanza.attrs.type, stanza.attrs.from, stanza.getChildText('body'), 0);
      }
    });
    const lasting = fresh.listeners('nonza');
    try {
      const jid = (await within(DEADLINE, 'login', fresh.start())).toString();
      await within(DEADLINE, 'stream management', enabled);
      this.client = fresh;
      fresh.send(xml('presence', {}, xml('priority', {}, '-1'))).catch(() => {});
      this.came(jid);
    } catch (error) {
      discard(fresh);
      throw error;
    }
  }

  /** Each attempt has its time: xmpp.js would wait for ever for a word of a connection that is open. */
  resuming(entity) {
    if (!this.away) this.tell('resuming', this.jid);
    this.away = true;
    entity.options.service = this.url();
    clearTimeout(this.stuck);
    this.stuck = setTimeout(() => {
      if (this.client === entity && this.away) entity.socket?.socket?.terminate?.();
    }, RESUME_DEADLINE);
  }

  /** The server knows the session no more. xmpp.js would begin another one by the same name. */
  give(entity, why) {
    this.client = null;
    this.away = false;
    clearTimeout(this.stuck);
    discard(entity);
    this.lost(why);
  }

  canSend() {
    return this.client?.streamManagement.enabled && this.client.status === 'online';
  }

  send(to, text) {
    this.client.send(xml('message', { type: 'chat', to }, xml('body', {}, text))).catch(() => {});
  }

  cut() {
    this.client?.socket?.socket?.terminate?.();
  }

  async end() {
    const { client } = this;
    this.client = null;
    await within(DEADLINE, 'end', client.stop());
  }
}

function discard(entity) {
  entity.reconnect.stop();
  entity.socket?.socket?.terminate?.();
  entity.stop().catch(() => {});
}
