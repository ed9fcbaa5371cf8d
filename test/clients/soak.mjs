#!/usr/bin/env node
// Some users who write to whoever is there, as long as they may: BOSH by Strophe.js, WebSocket by xmpp.js. Events are lines
// "MILLISECONDS NAME WORDS" on the standard output, see lib/talkers.mjs; commands come by the standard input, whose end ends all.

import { createInterface } from 'node:readline';
import { BoshTalker, WebSocketTalker } from './lib/talkers.mjs';
import { EXIT, leave, number, parse, passwords } from './lib/cli.mjs';

const USAGE = `usage: soak.mjs --kind bosh|ws --ports P,P --domain DOMAIN --users A,B,... [--passwords P] --generation N --seed N
  --ports      connection managers on 127.0.0.1; each login is by one of them
  --generation makes the names of sessions unique among programs
  --seed       of who writes to whom, and when
  --pause      milliseconds between two messages of a user, more or less (default 1000)

commands, one a line:
  peers JID ...    who is there
  cut              the TCP connections of all users break
  quiet            nobody writes any more
  settle           prints settled when all that was sent is confirmed
  probe            each sends one message to itself; prints probed
  quit             all leave in good order`;

const values = parse(USAGE, {
  kind: { type: 'string' },
  ports: { type: 'string' },
  domain: { type: 'string' },
  users: { type: 'string' },
  passwords: { type: 'string' },
  generation: { type: 'string' },
  seed: { type: 'string' },
  pause: { type: 'string', default: '1000' },
}, ['kind', 'ports', 'domain', 'users', 'generation', 'seed']);

const ports = values.ports.split(',');
const [password] = passwords(values, 1);
const generation = number(values, 'generation');
const pause = number(values, 'pause', { min: 1 });

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const random = randomFrom(number(values, 'seed'));
// Written at once: what a program that is killed has told counts.
const tell = (event, ...words) => process.stdout.write(`${Date.now()} ${event} ${words.join(' ')}\n`);
const [Kind, scheme, path] = { bosh: [BoshTalker, 'http', 'bosh'], ws: [WebSocketTalker, 'ws', 'ws'] }[values.kind];
const url = () => `${scheme}://127.0.0.1:${ports[Math.floor(random() * ports.length)]}/${path}`;
const talkers = values.users.split(',').map((user) => new Kind({
  user, password, domain: values.domain, url, generation, pause, random, tell,
}));

const commands = {
  peers: (...jids) => talkers.forEach((talker) => { talker.peers = jids; }),
  cut: () => talkers.forEach((talker) => talker.cut()),
  quiet: () => talkers.forEach((talker) => talker.quiet()),
  probe: () => Promise.all(talkers.map((talker) => talker.probe())).then(() => tell('probed')),
  settle: async () => {
    while (talkers.some(({ open }) => open.length > 0)) await new Promise((resolve) => { setTimeout(resolve, 50); });
    tell('settled');
  },
  quit: async () => {
    await Promise.all(talkers.map((talker) => talker.leave()));
    tell('bye');
    leave(EXIT.ok);
  },
};

// A library that has lost a connection leaves promises behind. Where that matters a user is missed.
process.on('unhandledRejection', (error) => tell('rejected', String(error?.message ?? error).replaceAll(/\s+/g, '_')));
const input = createInterface({ input: process.stdin });
input.on('line', (line) => {
  const [name, ...words] = line.split(' ');
  commands[name](...words);
});
input.on('close', () => process.exit(EXIT.failed));
for (const talker of talkers) talker.start();
