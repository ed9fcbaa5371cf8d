// What a browser gives Strophe.js and Node does not: an XMLHttpRequest whose connections are kept alive and
// pooled for each client (a browser is one client), a sessionStorage that outlives a page, and WebCrypto under its
// global name on Node 18.
// Strophe's own Node build brings DOMParser (xmldom) and WebSocket (ws). The ready-made XMLHttpRequest packages
// open a connection for each request, or lose a request whose reused connection is reset: both would hide just
// what is to be tested here.

import http from 'node:http';
import https from 'node:https';
import { webcrypto } from 'node:crypto';

globalThis.crypto ??= webcrypto;

const stored = new Map();
// Newer versions of Node have one of their own.
Object.defineProperty(globalThis, 'sessionStorage', {
  configurable: true,
  value: {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => { stored.set(key, String(value)); },
    removeItem: (key) => { stored.delete(key); },
  },
});

/** As many connections to one host as browsers allow themselves over HTTP/1.1. */
const SOCKETS_PER_CLIENT = 6;

/**
 * Connection pools and the requests that wait for answers, by the fragment of the service URL: Strophe's requests carry
 * nothing else of their client.
 */
const pools = new Map();
let lastClient = 0;

/** Makes a pool of its own for a client. The service URL that comes back names it and is otherwise the same. */
export function openPool(service) {
  const url = new URL(service);
  const id = `#client-${++lastClient}`;
  const { Agent } = url.protocol === 'https:' ? https : http;
  pools.set(id, { agent: new Agent({ keepAlive: true, maxSockets: SOCKETS_PER_CLIENT }), waiting: new Set() });
  url.hash = id;
  return url.href;
}

/** Closes the connections of a client's pool, idle or not. */
export function closePool(service) {
  const { hash } = new URL(service);
  pools.get(hash)?.agent.destroy();
  pools.delete(hash);
}

/** The connections of a client's pool break; it can make others. */
export function cutPool(service) {
  pools.get(new URL(service).hash)?.agent.destroy();
}

/**
 * The page of a client goes while requests wait: no answer has an effect any more. What comes all the same is called back with.
 * `cut`: the connections are closed at once, as browsers do; otherwise they stay until the answers have come, as they do where
 * others share them. The promise is kept when no answer can come any more.
 */
export async function unloadPool(service, cut, late) {
  const { hash } = new URL(service);
  const { agent, waiting } = pools.get(hash);
  pools.delete(hash);
  await Promise.all([...waiting].map((request) => request.orphan(cut, late)));
  agent.destroy();
}

const UNSENT = 0;
const OPENED = 1;
const HEADERS_RECEIVED = 2;
const LOADING = 3;
const DONE = 4;

/** The part of XMLHttpRequest that Strophe uses, asynchronous and for text. */
class PooledXMLHttpRequest {
  onreadystatechange = null;
  readyState = UNSENT;
  status = 0;
  responseText = '';
  #request = null;
  #response = null;
  #document = null;
  #target = null;
  #headers = {};
  #late = null;

  open(method, service) {
    const url = new URL(service);
    const pool = pools.get(url.hash);
    if (!pool) throw new Error(`no open client has the service ${service}`);
    this.#target = { url, method, ...pool };
    this.#become(OPENED);
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  send(body) {
    const { url, method, agent, waiting } = this.#target;
    const { request } = url.protocol === 'https:' ? https : http;
    const headers = { ...this.#headers, 'Content-Length': Buffer.byteLength(body) };
    this.#request = request(url, { method, agent, headers });
    this.#request.on('response', (response) => this.#receive(response));
    this.#request.on('error', () => this.#fail());
    this.#request.end(body);
    waiting.add(this);
  }

  /** No page is there for the answer: see unloadPool. */
  orphan(cut, late) {
    const request = this.#request;
    this.#late = late;
    this.onreadystatechange = null;
    return new Promise((resolve) => {
      request.on('close', resolve);
      request.on('error', resolve);
      // The request itself goes out before.
      if (!cut) return;
      if (request.writableFinished) request.socket.end();
      else request.on('finish', () => request.socket.end());
    });
  }

  /** Ends the request. As in a browser the state is unsent afterwards and an answer has no effect any more. */
  abort() {
    const request = this.#request;
    this.#request = null;
    this.readyState = UNSENT;
    this.status = 0;
    this.#target?.waiting.delete(this);
    request?.destroy();
  }

  getAllResponseHeaders() {
    const pairs = Object.entries(this.#response?.headers ?? {});
    return pairs.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  }

  /** The parsed answer; null while there is none and when it is not XML. */
  get responseXML() {
    if (this.readyState !== DONE || this.responseText === '') return null;
    // Strophe's DOMParser, which it has made global by now.
    this.#document ??= new DOMParser().parseFromString(this.responseText, 'text/xml');
    return this.#document.documentElement?.tagName === 'parsererror' ? null : this.#document;
  }

  #receive(response) {
    if (!this.#request) return;
    const chunks = [];
    this.#response = response;
    this.status = response.statusCode;
    this.#become(HEADERS_RECEIVED);
    response.on('data', (chunk) => {
      chunks.push(chunk);
      if (this.readyState === HEADERS_RECEIVED) this.#become(LOADING);
    });
    response.on('end', () => {
      if (!this.#request) return;
      this.responseText = Buffer.concat(chunks).toString('utf8');
      this.#become(DONE);
      this.#late?.(this.responseText);
    });
    // The connection broke within the answer.
    response.on('error', () => this.#fail());
  }

  /** A network error: state done with status 0, which Strophe answers by sending the request again. */
  #fail() {
    if (!this.#request || this.readyState === DONE) return;
    this.status = 0;
    this.responseText = '';
    this.#become(DONE);
  }

  #become(state) {
    this.readyState = state;
    if (state === DONE) this.#target.waiting.delete(this);
    this.onreadystatechange?.({ type: 'readystatechange' });
  }
}

globalThis.XMLHttpRequest = PooledXMLHttpRequest;
