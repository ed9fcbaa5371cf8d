#!/usr/bin/env node
// Users of Converse.js (converse.html) in a real browser, for tests: each has a page, looks at it, clicks and types. Prints
// events as JSON lines and obeys commands from its standard input. The end of the input ends it, and the browser.

import { chromium } from 'playwright-core';
import { EXIT, leave, number, overallDeadline, parse } from './lib/cli.mjs';
import { obeyLines, tell } from './lib/commands.mjs';

const USAGE = `usage: pages.mjs --browser FILE
  --browser   the Chromium to run
  --deadline  milliseconds for each step (default 20000)
  --give-up   seconds after which the program ends in any case (default 300)

commands, one a line, and the event that each ends with, one JSON object a line, "event" first:
  open PAGE URL       a page with a browser profile of its own, until its user is online    online {page, user}
  sees PAGE JID       until that contact is shown as online       sees {page, jid}
  chat PAGE JID       a click on that contact                     chatting {page, jid}
  say PAGE TEXT       typed, and Enter, until it is shown         said {page}
  messages PAGE N     of the chat that is open, when there are N  messages {page, messages} (each "me: text" or "them: text")
  reload PAGE         loads the page again, but not yet its script: the old page is gone, the new one does nothing  away {page}
  go-on PAGE          lets the script come                        online {page, user}
  logout PAGE         by the buttons for it                       loggedout {page, jid} (as the form has it)
  login PAGE          by the form, as it is filled in             online {page, user}
  picture PAGE FILE   a PNG file                                  picture {page, width, height, bytes, colours, most}
                      (how many colours, and the percentage of pixels that have the most frequent one)
  complaints          what the browser has found wrong since it was asked last: errors of scripts and in the console,
                      requests that failed                        complaints {complaints}
  quit                                                            bye
when a command fails: error {error}`;

const values = parse(USAGE, {
  browser: { type: 'string' },
  deadline: { type: 'string', default: '20000' },
  'give-up': { type: 'string', default: '300' },
}, ['browser']);
const deadline = number(values, 'deadline', { min: 1 });
overallDeadline(number(values, 'give-up', { min: 1, max: 86_400 }));

const SIZE = { width: 900, height: 560 };
/** The script without which a page does nothing. */
const SCRIPT = '**/converse.min.js';

const browser = await chromium.launch({
  executablePath: values.browser,
  // No word to any other server: no other name is known.
  args: ['--disable-gpu', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost'],
});
const pages = new Map();
/** Pages that are loaded again and wait for their script. */
const reloading = new Map();
let complaints = [];

/** Notes what the browser finds wrong with a page. */
function watch(name, page) {
  const complain = (what, text) => complaints.push(`${name}: ${what}: ${text}`);
  page.on('console', (message) => {
    if (message.type() === 'error') complain('console', message.text());
  });
  page.on('pageerror', (error) => complain('script', error.message));
  page.on('crash', () => complain('page', 'crashed'));
  page.on('requestfailed', (request) => complain('request', `${request.url()} ${request.failure().errorText}`));
  page.on('response', (response) => {
    if (response.status() >= 400) complain('answer', `${response.url()} ${response.status()}`);
  });
  page.on('websocket', (socket) => socket.on('socketerror', (error) => complain('websocket', error)));
}

/** Parts of a page. */
const find = (name, selector) => pages.get(name).locator(selector);
const contact = (name, jid) => find(name, `converse-roster a.open-chat[data-jid="${jid}"]`);
const input = (name) => find(name, 'textarea.chat-textarea');
const messages = (name) => find(name, 'converse-chat .chat-msg');
const form = (name) => find(name, 'form#converse-login');

/** What a user sees of each message: who said it, its text, and the error that came back, if one did. */
const seen = (name) => messages(name).evaluateAll((elements) => elements.map((element) => {
  const sender = element.querySelector('.chat-msg__content--me') ? 'me' : 'them';
  const error = element.querySelector('.chat-msg__error')?.textContent ?? '';
  return `${sender}: ${element.querySelector('.chat-msg__text')?.textContent}${error}`;
}));

async function online(name) {
  await find(name, '.xmpp-status .online').waitFor();
  tell('online', { page: name, user: await find(name, '.profile .username').innerText() });
}

/** What the browser itself makes of a picture. */
async function look(png) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const found = await page.evaluate(async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
    const { width, height } = image;
    const canvas = new OffscreenCanvas(width, height).getContext('2d');
    canvas.drawImage(image, 0, 0);
    const counts = new Map();
    for (const pixel of new Uint32Array(canvas.getImageData(0, 0, width, height).data.buffer)) {
      counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    }
    const most = Math.round(100 * Math.max(...counts.values()) / (width * height));
    return { width, height, bytes: bytes.length, colours: counts.size, most };
  }, png.toString('base64'));
  await context.close();
  return found;
}

const commands = {
  open: async (name, url) => {
    const context = await browser.newContext({ viewport: SIZE, reducedMotion: 'reduce' });
    context.setDefaultTimeout(deadline);
    const page = await context.newPage();
    pages.set(name, page);
    watch(name, page);
    await page.goto(url).catch((error) => {
      // Without the password that is in the address.
      throw new Error(error.message.replaceAll(new URL(url).hash, '#...'));
    });
    await online(name);
  },
  sees: async (name, jid) => {
    await contact(name, jid).locator('[color="var(--chat-status-online)"]').waitFor();
    tell('sees', { page: name, jid });
  },
  chat: async (name, jid) => {
    await contact(name, jid).click();
    await input(name).waitFor();
    tell('chatting', { page: name, jid });
  },
  say: async (name, ...words) => {
    const before = await messages(name).count();
    await input(name).fill(words.join(' '));
    await input(name).press('Enter');
    await messages(name).nth(before).waitFor();
    tell('said', { page: name });
  },
  messages: async (name, count) => {
    await messages(name).nth(Number(count) - 1).waitFor();
    tell('messages', { page: name, messages: await seen(name) });
  },
  reload: async (name) => {
    const page = pages.get(name);
    const asked = new Promise((resolve) => { page.route(SCRIPT, resolve, { times: 1 }); });
    const loaded = page.reload();
    const route = await Promise.race([asked, loaded.then(() => { throw new Error('loaded without its script'); })]);
    reloading.set(name, async () => {
      await route.continue();
      await loaded;
    });
    tell('away', { page: name });
  },
  'go-on': async (name) => {
    await reloading.get(name)();
    reloading.delete(name);
    await online(name);
  },
  logout: async (name) => {
    const button = (title) => pages.get(name).getByRole('button', { name: title });
    await find(name, '.show-profile').click();
    await button('Log out').click();
    await button('Confirm').click();
    await form(name).waitFor();
    tell('loggedout', { page: name, jid: await form(name).locator('[name=jid]').inputValue() });
  },
  login: async (name) => {
    await form(name).locator('[type=submit]').click();
    await online(name);
  },
  picture: async (name, file) => {
    const png = await pages.get(name).screenshot({ path: file });
    tell('picture', { page: name, ...await look(png) });
  },
  complaints: () => {
    tell('complaints', { complaints });
    complaints = [];
  },
  quit: () => lines.close(),
};

const lines = obeyLines(commands, Promise.resolve(), () => true, async () => {
  await browser.close();
  tell('bye');
  leave(EXIT.ok);
});
