#!/usr/bin/env node
// One user that stays, for tests that take something away from it: prints events as JSON lines and obeys
// commands from its standard input. The end of the input ends it.

import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { performance } from 'node:perf_hooks';
import { Client, bodyOf, stropheLog } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords } from './lib/cli.mjs';

/** Characters of a message's body that are printed: a line stays short enough for whoever reads them. */
const SHOWN = 1000;

const USAGE = `usage: stay.mjs --url URL --domain DOMAIN (--user NAME [--passwords P] | --anonymous)
  --resource   resource to ask for
  --mechanism  scram (default), plain, ...
  --relogin    milliseconds after which a lost connection or failed login is tried again (default: never)
  --wait       seconds that a BOSH request is held (default 60)
  --deadline   milliseconds for each step (default 15000)
  --give-up    seconds after which the program ends in any case (default 600)

events, one JSON object a line, "event" first:
  connected {jid, mechanism, ms}   failed {error}       disconnected {reason}
  message {from, body, length, sha256}   (body: its first 1,000 characters)
  presence {from, type}
  sent {to, id}                    pong {ms}            error {error}         bye
commands, one a line:
  send JID TEXT    large JID N (N characters)    presence [TYPE]    ping
  login            disconnect (a clean end)      drop (connections cut, no goodbye)
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
  deadline: number(values, 'deadline', { min: 1 }),
};

const tell = (event, details = {}) => process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);

let client = null;
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
      tell('message', { from, body: body.slice(0, SHOWN), length: body.length, sha256 });
    }
  } else if (stanza.tagName === 'presence') {
    tell('presence', { from, type: stanza.getAttribute('type') || 'available' });
  }
}

async function login() {
  if (client) return;
  const start = performance.now();
  // A fresh one each time, as a page that was loaded again.
  const fresh = new Client(settings);
  client = fresh;
  fresh.onStanza(received);
  let connected = false;
  fresh.onStatus((status, reason) => {
    if (status !== 'disconnected' || !connected || client !== fresh) return;
    tell('disconnected', { reason });
    lost();
  });
  try {
    await fresh.login();
  } catch (error) {
    if (client !== fresh) return;
    tell('failed', { error: error.message });
    lost();
    return;
  }
  connected = true;
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

const commands = {
  send: (to, ...words) => tell('sent', { to, id: client.message(to, words.join(' ')) }),
  large: (to, length) => tell('sent', { to, id: client.message(to, 'L'.repeat(Number(length))) }),
  presence: (type) => client.presence(type ? { type } : {}),
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
  kill: () => process.kill(process.pid, 'SIGKILL'),
  quit: async () => {
    await end();
    input.close();
  },
};
const needConnection = new Set(['send', 'large', 'presence', 'ping', 'drop']);

async function obey(line) {
  const [name, ...words] = line.trim().split(' ');
  if (name === '') return;
  try {
    if (!Object.hasOwn(commands, name)) throw new Error(`unknown command ${name}`);
    if (needConnection.has(name) && client?.status !== 'connected') throw new Error(`${name}: not connected`);
    await commands[name](...words);
  } catch (error) {
    tell('error', { error: error.message });
  }
}

const input = createInterface({ input: process.stdin });
// Commands are obeyed in their order, each after the one before has ended.
let turn = login();
input.on('line', (line) => {
  // A death must not wait for its turn.
  if (line.trim() === 'kill') commands.kill();
  turn = turn.then(() => obey(line));
});
input.on('close', async () => {
  await turn.catch(() => {});
  await end().catch((error) => tell('error', { error: error.message }));
  client?.drop();
  if (stropheLog.length > 0 && process.env.XMPP_DEBUG) process.stderr.write(`${stropheLog.join('\n')}\n`);
  tell('bye');
  leave(EXIT.ok);
});
