#!/usr/bin/env node
// Many users in one process: all log in, each sends to its partner and hears from it, all leave. Prints counts,
// times and every kind of error as JSON.

import { performance } from 'node:perf_hooks';
import { Client, bodyOf, stropheLog } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords, summary } from './lib/cli.mjs';

const USAGE = `usage: crowd.mjs --url URL --domain DOMAIN --count N (--users PREFIX [--passwords P] | --anonymous)
  --users       users are PREFIX1 ... PREFIXN, all with one password (or XMPP_PASSWORDS in the environment)
  --anonymous   SASL ANONYMOUS instead
  --count       how many users, an even number
  --rounds      messages that each user sends to its partner (default 3)
  --size        characters of each message (default 200)
  --together    logins at the same time (default 25)
  --mechanism   scram (default), plain, ...
  --wait        seconds that a BOSH request may be held (default 60)
  --deadline    milliseconds for each step of each user (default 30000)`;

const values = parse(USAGE, {
  url: { type: 'string' },
  domain: { type: 'string' },
  users: { type: 'string' },
  anonymous: { type: 'boolean', default: false },
  passwords: { type: 'string' },
  count: { type: 'string' },
  rounds: { type: 'string', default: '3' },
  size: { type: 'string', default: '200' },
  together: { type: 'string', default: '25' },
  mechanism: { type: 'string', default: 'scram' },
  wait: { type: 'string', default: '60' },
  deadline: { type: 'string', default: '30000' },
}, ['url', 'domain', 'count']);

const count = number(values, 'count', { min: 2, max: 10_000 });
const rounds = number(values, 'rounds', { min: 0, max: 10_000 });
const size = number(values, 'size', { min: 1, max: 1_000_000 });
const together = number(values, 'together', { min: 1, max: 10_000 });
const wait = number(values, 'wait', { min: 1, max: 300 });
const deadline = number(values, 'deadline', { min: 1 });
if (count % 2 !== 0 || Boolean(values.users) === values.anonymous) {
  process.stderr.write(`--count must be even, and either --users or --anonymous given\n\n${USAGE}\n`);
  process.exit(EXIT.usage);
}
const password = values.anonymous ? '' : passwords(values, 1)[0];
overallDeadline(Math.ceil((deadline * (4 + rounds)) / 1000));

const errors = new Map();
const times = { login: [], message: [], disconnect: [] };
const counts = { loggedIn: 0, sent: 0, received: 0, disconnected: 0 };

function failed(error) {
  // One line for a kind of error, however many users met it.
  const kind = error.message.replaceAll(/\b\w*\d+\b/g, '#');
  errors.set(kind, (errors.get(kind) ?? 0) + 1);
}

async function timed(list, action) {
  const start = performance.now();
  await action();
  list.push(performance.now() - start);
}

/** Does `action` for each, at most `limit` at a time; an error is counted and harms nobody else. */
async function each(items, limit, action) {
  const queue = [...items];
  await Promise.all(Array.from({ length: Math.min(limit, queue.length) }, async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      await action(item).catch(failed);
    }
  }));
}

const clients = Array.from({ length: count }, (_, index) => new Client({
  url: values.url,
  wait,
  domain: values.domain,
  user: values.anonymous ? '' : `${values.users}${index + 1}`,
  password,
  mechanism: values.anonymous ? 'anonymous' : values.mechanism,
  deadline,
}));

async function login(client) {
  await timed(times.login, () => client.login());
  client.presence();
  counts.loggedIn += 1;
}

/** One round of one user: its partner must hear exactly this text. */
async function talk(client, partner, round) {
  const text = `${round} of ${client.jid} ${'x'.repeat(size)}`.slice(0, Math.max(size, 80));
  const heard = partner.next(`message ${round}`, (stanza) => stanza.tagName === 'message' && bodyOf(stanza) === text);
  heard.catch(() => {});
  await timed(times.message, async () => {
    client.message(partner.jid, text);
    counts.sent += 1;
    await heard;
  });
  counts.received += 1;
}

const started = performance.now();
await each(clients, together, login);
const online = new Set(clients.filter(({ status }) => status === 'connected'));
const pairs = clients.map((client, index) => [client, clients[index % 2 === 0 ? index + 1 : index - 1]])
  .filter((pair) => pair.every((client) => online.has(client)));
for (let round = 1; round <= rounds; round += 1) {
  await each(pairs, pairs.length, ([client, partner]) => talk(client, partner, round));
}
await each(online, together, async (client) => {
  await timed(times.disconnect, () => client.disconnect());
  counts.disconnected += 1;
});
for (const client of clients) client.drop();

const ok = errors.size === 0 && counts.loggedIn === count && counts.received === count * rounds
  && counts.disconnected === count;
process.stdout.write(`${JSON.stringify({
  ok,
  transport: /^https?:/.test(values.url) ? 'BOSH' : 'WebSocket',
  users: count,
  ...counts,
  ms: Math.round(performance.now() - started),
  loginMs: summary(times.login),
  messageMs: summary(times.message),
  disconnectMs: summary(times.disconnect),
  errors: Object.fromEntries(errors),
  ...(!ok && { log: stropheLog.slice(-20) }),
})}\n`);
leave(ok ? EXIT.ok : EXIT.failed);
