#!/usr/bin/env node
// One user that stays, for tests that take something away from it: prints events as JSON lines and obeys
// commands from its standard input. The end of the input ends it.

import { createHash } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Client, bodiesOf, bodyOf, stropheLog } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords } from './lib/cli.mjs';
import { obeyLines, tell } from './lib/commands.mjs';

/** Characters of a message's body that are printed: a line stays short enough for whoever reads them. */
const SHOWN = 1000;

/** Lines of what Strophe complained of that are printed when it gives up. */
const SHOWN_LOG_LINES = 20;

const USAGE = `usage: stay.mjs --url URL --domain DOMAIN (--user NAME [--passwords P] | --anonymous)
  --resource   resource to ask for
  --mechanism  scram (default), plain, ...
  --relogin    milliseconds after which a lost connection or failed login is tried again (default: never)
  --wait       seconds that a BOSH request is held (default 60)
  --keepalive  the BOSH session outlives its page: for unload and restore
  --deadline   milliseconds for each step (default 15000)
  --give-up    seconds after which the program ends in any case (default 600)

events, one JSON object a line, "event" first:
  connected {jid, mechanism, ms}   failed {error}       disconnected {reason, log}
  message {from, body, length, sha256, page}   (body: its first 1,000 characters; page: counts those of restore)
  presence {from, type}
  sent {to, id}                    pong {ms}            error {error}         bye
  unloaded {page, bodies}          (the messages that came when the page had gone)    restored {jid, page}
commands, one a line:
  send JID TEXT    large JID N (N characters)    presence [TYPE]    ping
  join ROOM NICK   say ROOM TEXT                 part ROOM NICK
  login            disconnect (a clean end)      drop (connections cut, no goodbye)
  unload           the page goes when its next request is out, and closes its connections; the session stays
  restore          a new page goes on with the session
  reload           both at once; the connections stay until the page's requests are answered
  reload-cut       both, as unload does it
  kill (the process dies at once)                quit (clean end, then exit)`;

const values = parse(USAGE, {
  url: { type: 'string' },
  domain: { type: 'string' },
  user: { type: 'string' },
  anonymous: { type: 'boolean', default: false },
  passwords: { type: 'string' },
  resource: { type: 'string', default: '' },
  mechanism: { type: 'string', default: 'scram' },
  relogin: { type: 'string' },
  wait: { type: 'string', default: '60' },
  keepalive: { type: 'boolean', default: false },
  deadline: { type: 'string', default: '15000' },
  'give-up': { type: 'string', default: '600' },
}, ['url', 'domain']);

if (Boolean(values.user) === values.anonymous) {
  process.stderr.write(`either --user or --anonymous\n\n${USAGE}\n`);
  process.exit(EXIT.usage);
}
overallDeadline(number(values, 'give-up', { min: 1, max: 86_400 }));
const again = values.relogin === undefined ? null : number(values, 'relogin');
const settings = {
  url: values.url,
  domain: values.domain,
  user: values.user ?? '',
  password: values.anonymous ? '' : passwords(values, 1)[0],
  resource: values.resource,
  mechanism: values.anonymous ? 'anonymous' : values.mechanism,
  wait: number(values, 'wait', { min: 1, max: 300 }),
  keepalive: values.keepalive,
  deadline: number(values, 'deadline', { min: 1 }),
};

let client = null;
let page = 1;
/** Set by the commands that end the connection on purpose: nothing is tried again then. */
let wanted = true;
let retry = null;

function lost() {
  client?.drop();
  client = null;
  if (wanted && again !== null && retry === null) {
    retry = setTimeout(() => {
      retry = null;
      login();
    }, again);
  }
}

function received(stanza) {
  const from = stanza.getAttribute('from');
  if (stanza.tagName === 'message') {
    const body = bodyOf(stanza);
    if (body !== null) {
      const sha256 = createHash('sha256').update(body).digest('hex');
      tell('message', { from, body: body.slice(0, SHOWN), length: body.length, sha256, page });
    }
  } else if (stanza.tagName === 'presence') {
    tell('presence', { from, type: stanza.getAttribute('type') || 'available' });
  }
}

function watch(connected) {
  connected.onStatus((status, reason) => {
    if (status !== 'disconnected' || client !== connected) return;
    tell('disconnected', { reason, log: stropheLog.slice(-SHOWN_LOG_LINES) });
    lost();
  });
}

async function login() {
  if (client) return;
  const start = performance.now();
  // A fresh one each time, as a page that was loaded again.
  const fresh = new Client(settings);
  client = fresh;
  fresh.onStanza(received);
  try {
    await fresh.login();
  } catch (error) {
    if (client !== fresh) return;
    tell('failed', { error: error.message });
    lost();
    return;
  }
  watch(fresh);
  fresh.presence();
  tell('connected', { jid: fresh.jid, mechanism: fresh.mechanism, ms: Math.round(performance.now() - start) });
}

async function end() {
  wanted = false;
  clearTimeout(retry);
  retry = null;
  const leaving = client;
  if (!leaving) return;
  await leaving.disconnect();
}

function unload(cut) {
  const leaving = client;
  const number = page;
  const bodies = [];
  client = null;
  leaving.unload(cut, (text) => bodies.push(...bodiesOf(text))).then(() => tell('unloaded', { page: number, bodies }));
}

function restore() {
  page += 1;
  client = new Client(settings);
  client.onStanza(received);
  watch(client);
  client.restore();
  tell('restored', { jid: client.jid, page });
}

const commands = {
  send: (to, ...words) => tell('sent', { to, id: client.message(to, words.join(' ')) }),
  large: (to, length) => tell('sent', { to, id: client.message(to, 'L'.repeat(Number(length))) }),
  presence: (type) => client.presence(type ? { type } : {}),
  join: (room, nick) => client.join(room, nick),
  say: (room, ...words) => client.say(room, words.join(' ')),
  part: (room, nick) => client.presence({ to: `${room}/${nick}`, type: 'unavailable' }),
  ping: async () => tell('pong', { ms: Math.round(await client.ping()) }),
  login: () => {
    wanted = true;
    return login();
  },
  disconnect: end,
  drop: () => {
    wanted = false;
    client.drop();
    client = null;
    tell('disconnected', { reason: 'dropped' });
  },
  unload: async () => {
    // After its answer there is nothing under way, so a request follows.
    await client.ping();
    await client.nextRequest();
    unload(true);
  },
  restore,
  reload: () => {
    unload(false);
    restore();
  },
  'reload-cut': async () => {
    await client.nextRequest();
    unload(true);
    restore();
  },
  kill: () => process.kill(process.pid, 'SIGKILL'),
  quit: async () => {
    await end();
    input.close();
  },
};
const needConnection = ['send', 'large', 'presence', 'join', 'say', 'part', 'ping', 'drop', 'unload', 'reload',
  'reload-cut'];

const input = obeyLines(commands, login(), (name) => !needConnection.includes(name) || ['connected', 'attached'].includes(client?.status),
  async () => {
    await end().catch((error) => tell('error', { error: error.message }));
    client?.drop();
    if (stropheLog.length > 0 && process.env.XMPP_DEBUG) process.stderr.write(`${stropheLog.join('\n')}\n`);
    tell('bye');
    leave(EXIT.ok);
  });
