// How tests drive clients: events as JSON lines on the standard output, commands as lines on the standard input.

import { createInterface } from 'node:readline';

export const tell = (event, details = {}) => process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);

/**
 * Obeys each line when `first`, a promise, and the commands before it have come to their end. `may`: whether a command can be
 * obeyed now. `end`: to be done when the input ends. Gives the input.
 */
export function obeyLines(commands, first, may, end) {
  const obey = async (line) => {
    const [name, ...words] = line.trim().split(' ');
    if (name === '') return;
    try {
      if (!Object.hasOwn(commands, name)) throw new Error(`unknown command ${name}`);
      if (!may(name)) throw new Error(`${name}: not connected`);
      await commands[name](...words);
    } catch (error) {
      tell('error', { error: error.message });
    }
  };
  const input = createInterface({ input: process.stdin });
  let turn = first;
  input.on('line', (line) => {
    // A death must not wait for its turn.
    if (line.trim() === 'kill') commands.kill();
    turn = turn.then(() => obey(line));
  });
  input.on('close', async () => {
    await turn.catch(() => {});
    await end();
  });
  return input;
}
