#!/usr/bin/env node
// Two users meet: login, presence, roster, messages both ways, and a clean end. The transport is the URL's:
// http(s) is BOSH, ws(s) is WebSocket.

import { performance } from 'node:perf_hooks';
import { Client, bodyOf, fromOf, stropheLog } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords } from './lib/cli.mjs';

const USAGE = `usage: chat.mjs --url URL --domain DOMAIN --users A,B [--passwords PA,PB]
  --url        http://HOST:PORT/bosh or ws://HOST:PORT/ws
  --passwords  one for both or two; better in the environment as XMPP_PASSWORDS
  --mechanism  scram (default), plain, scram-sha-1, scram-sha-256, scram-sha-512
  --size       characters of the large message (default 100000)
  --deadline   milliseconds for each step (default 15000)
  --json       print the result as one JSON line and nothing else`;

const values = parse(USAGE, {
  url: { type: 'string' },
  domain: { type: 'string' },
  users: { type: 'string' },
  passwords: { type: 'string' },
  mechanism: { type: 'string', default: 'scram' },
  size: { type: 'string', default: '100000' },
  deadline: { type: 'string', default: '15000' },
  json: { type: 'boolean', default: false },
}, ['url', 'domain', 'users']);

const names = values.users.split(',');
if (names.length !== 2) {
  process.stderr.write(`--users must name two users, not ${names.length}\n\n${USAGE}\n`);
  process.exit(EXIT.usage);
}
const secrets = passwords(values, 2);
const size = number(values, 'size', { min: 1, max: 10_000_000 });
const deadline = number(values, 'deadline', { min: 1 });
const transport = /^https?:/.test(values.url) ? 'BOSH' : 'WebSocket';
overallDeadline(Math.ceil((deadline * 12) / 1000));

const started = performance.now();
const steps = [];
const width = Math.max(...names.map((name) => name.length));

function say(who, text) {
  if (!values.json) process.stdout.write(`  ${who.padEnd(width)}  ${text}\n`);
}

/** Runs one step, keeps its time, and puts its name before an error. */
async function step(name, action) {
  const start = performance.now();
  try {
    return await action();
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  } finally {
    steps.push({ name, ms: Math.round((performance.now() - start) * 10) / 10 });
  }
}

const shown = (text) => (text.length <= 60 ? text : `${text.slice(0, 24)}... (${text.length} characters)`);

/** Sends a text and waits until the other one has exactly that. */
async function tell(from, to, text) {
  const arrived = to.next(`message from ${from.name}`, (stanza) =>
    stanza.tagName === 'message' && bodyOf(stanza) !== null && fromOf(stanza) === from.bareJid);
  const start = performance.now();
  from.message(to.bareJid, text);
  say(from.name, `-> ${to.name}: ${shown(text)}`);
  const got = bodyOf(await arrived);
  if (got !== text) throw new Error(`${to.name} got ${got.length} characters that are not the ${text.length} sent`);
  say(to.name, `<- ${from.name}: ${shown(got)}  [${Math.round(performance.now() - start)} ms]`);
}

const isPresence = (from, type) => (stanza) =>
  stanza.tagName === 'presence' && fromOf(stanza) === from.bareJid && stanza.getAttribute('type') === type;

/** Becomes a contact of the other, who agrees, and waits until it sees the other online. */
async function meet(one, other) {
  const asked = other.next(`request of ${one.name}`, isPresence(one, 'subscribe'));
  const seen = one.next(`presence of ${other.name}`, isPresence(other, null));
  one.presence({ to: other.bareJid, type: 'subscribe' });
  await asked;
  other.presence({ to: one.bareJid, type: 'subscribed' });
  await seen;
  say(one.name, `sees ${other.name} online`);
}

/** Contacts from an earlier run see each other as soon as both are online. */
async function seeEachOther(one, other) {
  const known = (await one.roster()).find(({ jid }) => jid === other.bareJid)?.subscription;
  await other.roster();
  if (known === 'both') {
    const seen = [
      other.next(`presence of ${one.name}`, isPresence(one, null)),
      one.next(`presence of ${other.name}`, isPresence(other, null)),
    ];
    one.presence();
    other.presence();
    await Promise.all(seen);
    say(one.name, `and ${other.name} are contacts already and see each other online`);
    return;
  }
  one.presence();
  other.presence();
  await meet(one, other);
  await meet(other, one);
}

/** The same characters each time, none of which a wrong framing would leave as they are. */
function largeText() {
  const part = 'Large & <small> "things" — 0123456789 äöü €\n';
  return part.repeat(Math.ceil(size / part.length)).slice(0, size);
}

const clients = names.map((user, index) => new Client({
  url: values.url, domain: values.domain, user, password: secrets[index], mechanism: values.mechanism, deadline,
}));
const [one, other] = clients;

async function conversation() {
  for (const client of clients) {
    await step(`login of ${client.name}`, () => client.login());
    say(client.name, `logged in as ${client.jid} by ${transport}, ${client.mechanism ?? values.mechanism}`);
  }
  await step('presence and roster', () => seeEachOther(one, other));
  await step('plain text', () => tell(one, other, `Hello ${other.name}, can you hear me?`));
  await step('answer', () => tell(other, one, `Loud and clear, ${one.name}.`));
  await step('emoji', () => tell(one, other, 'Grüße 👋🏽 from 東京 📣🎉'));
  await step('emoji back', () => tell(other, one, '👩‍👩‍👧‍👦 & <ciao> \u{1F680}'));
  await step('large text', () => tell(one, other, largeText()));
  await step('large text back', () => tell(other, one, largeText()));
  const left = other.next(`end of ${one.name}`, isPresence(one, 'unavailable'));
  left.catch(() => {});
  await step(`end of ${one.name}`, () => one.disconnect());
  say(one.name, 'left');
  await step('presence of the end', () => left);
  say(other.name, `sees ${one.name} go`);
  await step(`end of ${other.name}`, () => other.disconnect());
  say(other.name, 'left');
}

let failure = null;
try {
  await conversation();
} catch (error) {
  failure = error;
} finally {
  for (const client of clients) client.drop();
}

const result = {
  ok: failure === null,
  transport,
  mechanism: one.mechanism,
  url: values.url,
  messages: steps.filter(({ name }) => /text|answer|emoji/.test(name)).length,
  largest: size,
  ms: Math.round(performance.now() - started),
  steps,
  ...(failure && { error: failure.message, log: stropheLog.slice(-20) }),
};
if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
else if (failure) process.stderr.write(`chat failed: ${failure.message}\n${stropheLog.map((line) => `  ${line}\n`).join('')}`);
leave(failure ? EXIT.failed : EXIT.ok);
