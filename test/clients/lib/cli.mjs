// What the client programs share: arguments, deadlines, results, exit codes.

import { parseArgs } from 'node:util';

/** Exit codes: 0 all went as it should, 1 something did not, 2 wrong arguments. */
export const EXIT = { ok: 0, failed: 1, usage: 2 };

/** Parses arguments; an unknown or missing one ends the program with the usage text. */
export function parse(usage, options, required) {
  const leave = (text) => {
    process.stderr.write(`${text}\n\n${usage}\n`);
    process.exit(EXIT.usage);
  };
  let values;
  try {
    ({ values } = parseArgs({ options: { ...options, help: { type: 'boolean' } }, allowPositionals: false }));
  } catch (error) {
    leave(error.message);
  }
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    process.exit(EXIT.ok);
  }
  for (const name of required) if (!values[name]) leave(`--${name} is missing`);
  return values;
}

/** A whole number of an option. */
export function number(values, name, { min = 0, max = Number.MAX_SAFE_INTEGER } = {}) {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  process.stderr.write(`--${name} must be a whole number from ${min} to ${max}, not ${values[name]}\n`);
  process.exit(EXIT.usage);
}

/** The password: from the environment where others cannot read it, or from the command line. */
export function passwords(values, count) {
  const list = (values.passwords ?? process.env.XMPP_PASSWORDS ?? '').split(',');
  if (list.length === count && list.every(Boolean)) return list;
  if (list.length === 1 && list[0]) return Array(count).fill(list[0]);
  process.stderr.write(`give --passwords, or XMPP_PASSWORDS in the environment: one, or ${count} with commas between\n`);
  process.exit(EXIT.usage);
}

/** Ends the program when everything together takes too long, whatever hangs. */
export function overallDeadline(seconds) {
  setTimeout(() => {
    process.stderr.write(`gave up after ${seconds} s in all\n`);
    process.exit(EXIT.failed);
  }, seconds * 1000).unref();
}

/** Writes all output before the program ends: a pipe may still hold some of it. */
export function leave(code) {
  process.exitCode = code;
  process.stdout.write('', () => process.exit(code));
}

/** Median and the like of a list of numbers, in whole tenths. */
export function summary(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const at = (part) => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 10) / 10;
  return { count: sorted.length, median: at(0.5), p99: at(0.99), max: at(1) };
}
