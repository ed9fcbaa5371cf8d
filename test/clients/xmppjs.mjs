#!/usr/bin/env node
// What people use of a chat server, by WebSocket with @xmpp/client: login, roster, presence, chat, a room, the archive,
// carbons, stream management with resumption after the TCP connection was cut, and a clean end.

import { client, xml } from '@xmpp/client';
import { within } from './lib/client.mjs';
import { EXIT, leave, number, overallDeadline, parse, passwords } from './lib/cli.mjs';

const USAGE = `usage: xmppjs.mjs --url URL --domain DOMAIN --users A,B [--passwords PA,PB]
  --url        ws://HOST:PORT/ws or wss://...
  --mechanism  PLAIN or SCRAM-SHA-1 (default)
  --cuts       how often a client's connection is cut while messages come (default 3)
  --deadline   milliseconds for each step (default 15000)`;

const values = parse(USAGE, {
  url: { type: 'string' },
  domain: { type: 'string' },
  users: { type: 'string' },
  passwords: { type: 'string' },
  mechanism: { type: 'string', default: 'SCRAM-SHA-1' },
  cuts: { type: 'string', default: '3' },
  deadline: { type: 'string', default: '15000' },
}, ['url', 'domain', 'users']);

const [nameA, nameB] = values.users.split(',');
const [secretA, secretB] = passwords(values, 2);
const deadline = number(values, 'deadline', { min: 1 });
const cuts = number(values, 'cuts', { min: 0 });
overallDeadline(Math.ceil((deadline * 12) / 1000));

const say = (text) => process.stdout.write(`${text}\n`);
const equal = (got, expected, what) => {
  if (got !== expected) throw new Error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
};

/** A user with this resource: what comes is kept until it is asked for. */
class User {
  constructor(name, password, resource) {
    this.bare = `${name}@${values.domain}`;
    this.got = [];
    this.waiting = [];
    this.entity = client({
      service: values.url,
      domain: values.domain,
      resource,
      username: name,
      credentials: (authenticate, mechanisms) => {
        if (!mechanisms.includes(values.mechanism)) throw new Error(`the server offers ${mechanisms}`);
        return authenticate({ username: name, password }, values.mechanism);
      },
    });
    this.entity.reconnect.delay = 300;
    // What goes wrong shows as a step that does not come to its end.
    this.entity.on('error', () => {});
    this.entity.on('stanza', (stanza) => {
      this.got.push(stanza);
      this.look();
    });
  }

  /**
   * Stanzas that come together with the answer to the question for stream management @xmpp/client would not count. With
   * SASL2 there is no such answer: it is a part of the login.
   */
  async start() {
    const answered = new Promise((resolve) => this.entity.on('nonza', (nonza) => nonza.is('enabled') && setImmediate(resolve)));
    this.jid = (await within(deadline, `login of ${this.bare}`, this.entity.start())).toString();
    if (!this.entity.streamManagement.enabled) await within(deadline, 'stream management', answered);
  }

  send(...stanzas) {
    return within(deadline, 'room to send', this.entity.sendMany(stanzas));
  }

  look() {
    this.waiting = this.waiting.filter(({ wanted, resolve }) => {
      const at = this.got.findIndex(wanted);
      if (at >= 0) resolve(this.got.splice(at, 1)[0]);
      return at < 0;
    });
  }

  next(what, wanted) {
    const found = new Promise((resolve) => this.waiting.push({ wanted, resolve }));
    this.look();
    return within(deadline, what, found);
  }

  ask(type, payload, to) {
    return within(deadline, 'answer', this.entity.iqCaller.request(xml('iq', { type, to }, payload), deadline));
  }

  /** The TCP connection goes without a word; it is back when the stream is resumed. */
  async cut() {
    const resumed = new Promise((resolve) => this.entity.streamManagement.once('resumed', resolve));
    const failed = new Promise((_, reject) => this.entity.streamManagement.once('fail', () => reject(new Error('a stanza was lost'))));
    this.entity.socket.socket.terminate();
    await within(deadline, 'resumption', Promise.race([resumed, failed]));
  }
}

const bodyOf = (stanza) => stanza.getChildText('body');
const isBody = (text) => (stanza) => stanza.is('message') && bodyOf(stanza) === text;
const numbers = (user, letter) => user.got.map((stanza) => (stanza.is('message') ? bodyOf(stanza) ?? '' : ''))
  .filter((body) => RegExp(`^${letter}[0-9]+$`).test(body)).map((body) => Number(body.slice(1)));
const chat = (to, text) => xml('message', { type: 'chat', to, id: text }, xml('body', {}, text));

async function main() {
  const a = new User(nameA, secretA, 'first');
  const second = new User(nameA, secretA, 'second');
  const b = new User(nameB, secretB, 'only');
  await Promise.all([a.start(), second.start(), b.start()]);
  // With SASL2 the server has the last word on the resource.
  equal(a.jid.split('/')[0], a.bare, 'the JID');
  say(`logged in with ${values.mechanism}`);

  await a.ask('set', xml('query', 'jabber:iq:roster', xml('item', { jid: b.bare, name: 'B' })));
  const roster = await a.ask('get', xml('query', 'jabber:iq:roster'));
  equal(roster.getChild('query').getChildren('item').map((item) => item.attrs.jid).join(), b.bare, 'the roster');
  await Promise.all([a, second, b].map((user) => user.send(xml('presence'))));
  await a.next('its own presence', (stanza) => stanza.is('presence') && stanza.attrs.from === a.jid);
  say('roster and presence');

  await a.send(chat(b.jid, 'to b'));
  await b.next('a chat message', isBody('to b'));
  await b.send(chat(a.jid, 'to a'));
  await a.next('a chat message', isBody('to a'));
  say('chat');

  const room = `room-${nameA}@conference.${values.domain}`;
  const join = (user, nick) => user.send(xml('presence', { to: `${room}/${nick}` }, xml('x', 'http://jabber.org/protocol/muc')));
  await join(a, 'a');
  await a.next('a room', (stanza) => stanza.is('presence') && stanza.attrs.from === `${room}/a`);
  await a.ask('set', xml('query', 'http://jabber.org/protocol/muc#owner', xml('x', { xmlns: 'jabber:x:data', type: 'submit' })), room);
  await join(b, 'b');
  await a.next('b in the room', (stanza) => stanza.is('presence') && stanza.attrs.from === `${room}/b`);
  await b.send(xml('message', { type: 'groupchat', to: room }, xml('body', {}, 'to all')));
  await Promise.all([a, b].map((user) => user.next('a message in the room', isBody('to all'))));
  say('room');

  await second.ask('set', xml('enable', 'urn:xmpp:carbons:2'));
  await b.send(chat(a.jid, 'with a carbon'));
  await a.next('the message', isBody('with a carbon'));
  await second.next('its carbon', (stanza) => stanza.getChild('received', 'urn:xmpp:carbons:2')
    ?.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message')?.getChildText('body') === 'with a carbon');
  say('carbon');

  await a.ask('set', xml('query', { xmlns: 'urn:xmpp:mam:2', queryid: 'q' }));
  const archived = a.got.filter((stanza) => stanza.getChild('result', 'urn:xmpp:mam:2'))
    .map((stanza) => stanza.getChild('result').getChild('forwarded').getChild('message').getChildText('body'));
  equal(archived.filter((body) => ['to b', 'to a', 'with a carbon'].includes(body)).join(), 'to b,to a,with a carbon', 'the archive');
  say('archive');

  // A fresh session that asks for nothing: @xmpp/client does not count the answers to its questions as it should.
  const c = new User(nameA, secretA, 'third');
  await c.start();
  await c.send(xml('presence', {}, xml('priority', {}, '-1')));
  let sent = 0;
  let told = 0;
  const burst = async () => {
    for (let n = 0; n < 20; n += 1) await b.send(chat(c.jid, `n${sent += 1}`));
  };
  for (let cut = 0; cut < cuts; cut += 1) {
    await burst();
    await c.next('messages before the cut', () => numbers(c, 'n').length >= sent).then((stanza) => c.got.unshift(stanza));
    // The last ones go down with the connection, in both directions, and are sent again; and some come while it is down. (Not
    // while the stream is being resumed: what ejabberd has then for the process that ends it may lose.)
    const sending = burst();
    for (let n = 0; n < 10; n += 1) c.entity.send(chat(b.jid, `m${told += 1}`)).catch(() => {});
    await c.cut();
    await sending;
  }
  await Promise.all([b.send(chat(c.jid, 'last')), c.send(chat(b.jid, 'last'))]);
  await Promise.all([b, c].map((user) => user.next('the last message', isBody('last'))));
  for (const [user, letter, count] of [[c, 'n', sent], [b, 'm', told]]) {
    const came = numbers(user, letter);
    equal(came.join(), Array.from({ length: count }, (_, n) => n + 1).join(), 'messages that came');
  }
  say(`${sent} messages to it and ${told} from it once and in order over ${cuts} cuts`);
  await within(deadline, 'a clean end', c.entity.stop());

  await Promise.all([a, second, b].map((user) => within(deadline, 'a clean end', user.entity.stop())));
  say('ended');
}

main().then(() => leave(EXIT.ok ?? 0), (error) => {
  process.stderr.write(`${error.stack}\n`);
  leave(EXIT.failed ?? 1);
});
