#!/usr/bin/env node
// One user that stays, as stay.mjs, with another library: stanza (StanzaJS), whose BOSH is its own and goes by fetch.

import { createClient } from 'stanza';
import { within } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords } from './lib/cli.mjs';
import { obeyLines, tell } from './lib/commands.mjs';

const USAGE = `usage: stanza.mjs --url URL --domain DOMAIN --user NAME [--passwords P]
  --mechanism  SCRAM-SHA-1, SCRAM-SHA-256 or PLAIN (default: the strongest that the server has)
  --deadline   milliseconds for each step (default 15000)
  --give-up    seconds after which the program ends in any case (default 600)

events, one JSON object a line, "event" first:
  connected {jid, mechanism}       failed {error}       disconnected {}
  message {from, body}             presence {from, type}
  sent {to, id}                    pong {}              error {error}         bye
commands, one a line:
  send JID TEXT    ping    join ROOM NICK    say ROOM TEXT    part ROOM NICK
  login            disconnect (a clean end)  quit (clean end, then exit)`;

const values = parse(USAGE, {
  url: { type: 'string' },
  domain: { type: 'string' },
  user: { type: 'string' },
  passwords: { type: 'string' },
  mechanism: { type: 'string' },
  deadline: { type: 'string', default: '15000' },
  'give-up': { type: 'string', default: '600' },
}, ['url', 'domain', 'user']);
overallDeadline(number(values, 'give-up', { min: 1, max: 86_400 }));
const deadline = number(values, 'deadline', { min: 1 });

/** Logged in, or on the way. A fresh one each time: one that has left while it had something to send cannot be used again. */
let client = null;

function fresh() {
  const made = createClient({
    jid: `${values.user}@${values.domain}`,
    password: passwords(values, 1)[0],
    transports: { bosh: values.url, websocket: false },
    autoReconnect: false,
  });
  // Without this it takes X-OAUTH2 rather than PLAIN.
  const mechanisms = made.sasl.mechanisms.map(({ name }) => name);
  if (values.mechanism) mechanisms.filter((name) => name !== values.mechanism).forEach((name) => made.sasl.disable(name));
  if (process.env.XMPP_DEBUG) made.on('raw:*', (direction, text) => process.stderr.write(`${direction} ${text}\n`));
  made.on('raw:outgoing', (text) => {
    made.mechanism = /<auth [^>]*mechanism="([^"]*)"/.exec(text)?.[1] ?? made.mechanism;
  });
  made.on('message', ({ from, body }) => {
    if (body !== undefined) tell('message', { from, body });
  });
  made.on('presence', ({ from, type }) => tell('presence', { from, type: type ?? 'available' }));
  made.on('bosh:terminate', () => {
    if (client === made) client = null;
    tell('disconnected');
  });
  return made;
}

/** The next event of a client with this name. */
const next = (from, name) => within(deadline, name, new Promise((resolve) => from.once(name, resolve)));

async function login() {
  if (client) return;
  const made = fresh();
  client = made;
  try {
    const started = next(made, 'session:started');
    const refused = new Promise((_, reject) => made.once('auth:failed', () => reject(new Error('refused'))));
    made.connect();
    await Promise.race([started, refused]);
    made.sendPresence();
    tell('connected', { jid: made.jid, mechanism: made.mechanism });
  } catch (error) {
    client = null;
    tell('failed', { error: error.message });
  }
}

async function end() {
  if (!client) return;
  const told = next(client, 'bosh:terminate');
  client.disconnect();
  await told;
}

const commands = {
  send: (to, ...words) => tell('sent', { to, id: client.sendMessage({ to, type: 'chat', body: words.join(' ') }) }),
  ping: async () => {
    await within(deadline, 'pong', client.ping(values.domain));
    tell('pong');
  },
  join: (room, nick) => within(deadline, 'room', client.joinRoom(room, nick)),
  say: (room, ...words) => client.sendMessage({ to: room, type: 'groupchat', body: words.join(' ') }),
  part: (room) => within(deadline, 'end of the room', client.leaveRoom(room)),
  login,
  disconnect: end,
  quit: async () => {
    await end();
    input.close();
  },
};

const input = obeyLines(commands, login(), (name) => client || ['login', 'disconnect', 'quit'].includes(name), async () => {
  await end().catch((error) => tell('error', { error: error.message }));
  tell('bye');
  leave(EXIT.ok);
});
