// The action's whole program. The runner starts it twice: in its turn, to get certificates for the job, and when the
// job ends, however it ends, to revoke and wipe them. What the second run must know, the first keeps in GITHUB_STATE.
// Inputs become arguments or environment of machine-id, never part of a command line that a shell would read.

import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const RELEASES = 'https://github.com/machine-id/machine-id/releases/download';
const TARGETS = {
  'Linux X64': 'x86_64-unknown-linux-musl',
  'Linux ARM64': 'aarch64-unknown-linux-musl',
  'macOS X64': 'x86_64-apple-darwin',
  'macOS ARM64': 'aarch64-apple-darwin',
};
const DOWNLOAD = { attempts: 3, timeout: 60_000, limit: 64 << 20 };
const CLEANUP_TIMEOUT = 60_000;

// machine-id's table of exit codes.
const MEANING = {
  1: 'an unexpected error',
  2: 'wrong usage or configuration',
  3: 'this job could not prove who it is; it needs `permissions: id-token: write`',
  4: 'the authority refused',
  5: 'the authority, or the platform that vouches for the job, was not reached in time',
  6: 'the destination could not be written',
};

/** A problem that is told without a stack, and the exit code that goes with it. */
class Failure extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

function fail(message, code = 2) {
  throw new Failure(message, code);
}

async function main() {
  save({ phase: 'post' }); // before anything that can fail: the second run must never take itself for the first
  const folder = mkdtempSync(join(runner('RUNNER_TEMP'), 'machine-id-')); // 0700, under a name that nobody can foresee
  save({ folder });

  const settings = { authority: input('authority'), 'ca-file': path(input('ca-file')), 'ca-pin': input('ca-pin') };
  const destination = path(input('destination')) || join(folder, 'certificates');
  const limits = { token: input('token'), ttl: input('ttl'), timeout: input('timeout') };
  const args = ['once', ...options({ 'join-method': 'github', ...settings, destination, ...limits })];
  args.push(...lines('output').map((type) => `--output=${type}`));
  args.push(...lines('role').map((name) => `--role=${name}`));
  if (process.env.RUNNER_DEBUG === '1') args.push('-v');

  const binary = await obtain(folder);
  save({ binary, destination, ...settings }); // before there are keys, so that even half of them are wiped
  const code = await run(binary, args);
  if (code !== 0) fail(`machine-id once failed with ${explain(code)}`, code);
}

/** Nothing that goes wrong here may fail a job that succeeded: it warns. */
async function post() {
  const { STATE_folder: folder, STATE_binary: binary, STATE_destination: destination } = process.env;
  const env = { ...process.env };
  for (const name of ['authority', 'ca-file', 'ca-pin']) {
    const value = process.env[`STATE_${name}`];
    if (value) env[`MACHINE_ID_${name.toUpperCase().replace('-', '_')}`] = value;
  }
  try {
    const code = binary ? await run(binary, ['cleanup', destination], env, CLEANUP_TIMEOUT) : 0;
    if (code !== 0) fail(`machine-id cleanup failed with ${explain(code)}`);
  } catch (error) {
    tell('warning', `${reason(error)}\nthe certificates may stay valid until they expire`);
  }
  try {
    if (folder) rmSync(folder, { recursive: true, force: true }); // ours alone: what was half-written goes with it
  } catch (error) {
    tell('warning', reason(error));
  }
}

/** Runs machine-id and gives its exit code, 128+n when signal n killed it. */
async function run(binary, args, env = process.env, limit = 0) {
  // Its standard output is the destination's path: input text, which the runner would search for workflow commands.
  // Its own commands, and all it has to say to people, come on standard error.
  const child = spawn(binary, args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  // Cancelling signals this process alone; machine-id must not live on and write after the wiping.
  const pass = (signal) => child.kill(signal);
  process.on('SIGINT', pass).on('SIGTERM', pass);
  const timer = limit && setTimeout(() => child.kill(), limit);
  try {
    const [code, signal] = await once(child, 'close');
    return code ?? 128 + constants.signals[signal];
  } catch (error) {
    fail(`cannot run ${binary}: ${reason(error)}`, error.code === 'ENOENT' ? 127 : 126);
  } finally {
    clearTimeout(timer);
    process.off('SIGINT', pass).off('SIGTERM', pass);
  }
}

/** The path of the executable, given or downloaded; with a SHA-256 to match, what does not match it is never run. */
async function obtain(folder) {
  const given = path(input('binary'));
  const wanted = input('sha256').toLowerCase();
  if (given && (input('version') || input('download-url'))) fail('give either `binary`, or what to download');
  if (given && !wanted) return given;
  if (!/^[0-9a-f]{64}$/.test(wanted)) {
    fail('`sha256` must have the 64 hexadecimal digits of the executable to download; or give the path of a `binary`');
  }
  const bytes = given ? readFileSync(given) : await download(source());
  const found = createHash('sha256').update(bytes).digest('hex');
  if (found !== wanted) fail(`not running machine-id: its SHA-256 is ${found}, not ${wanted}`);
  if (given) return given;
  const binary = join(folder, 'machine-id');
  writeFileSync(binary, bytes, { mode: 0o700, flag: 'wx' });
  return binary;
}

/** The URL to download from: over https, or over http on this machine. */
function source() {
  const mirror = input('download-url');
  if (mirror) {
    const url = URL.canParse(mirror) ? new URL(mirror) : {};
    const loopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
    if (url.protocol === 'https:' || (url.protocol === 'http:' && loopback)) return url;
    fail('`download-url` must be an https URL');
  }
  const version = input('version').replace(/^v/, '');
  if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version)) fail('`version` must be a release, such as 0.1.0');
  const machine = `${runner('RUNNER_OS')} ${runner('RUNNER_ARCH')}`;
  const target = TARGETS[machine] ?? fail(`no release for ${machine}: build it and give its path in \`binary\``);
  return new URL(`${RELEASES}/v${version}/machine-id-${target}`);
}

async function download(url, attempt = 1) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD.timeout) });
    if (!response.ok) throw Object.assign(new Error(`status ${response.status}`), { final: response.status < 429 });
    const chunks = [];
    let size = 0;
    for await (const chunk of response.body) {
      size += chunk.length;
      if (size > DOWNLOAD.limit) throw Object.assign(new Error('too large'), { final: true });
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    const name = url.origin + url.pathname; // a mirror's query may hold its credentials
    if (error.final || attempt === DOWNLOAD.attempts) fail(`cannot download ${name}: ${reason(error)}`, 5);
    await sleep(1000 * attempt);
    return download(url, attempt + 1);
  }
}

/** `--name=value`, one argument each, so that no value can pass for an option; empty ones are left to the defaults. */
function options(values) {
  return Object.entries(values).flatMap(([name, value]) => (value ? [`--${name}=${value}`] : []));
}

function input(name) {
  return plain(name, (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim());
}

function lines(name) {
  const text = process.env[`INPUT_${name.toUpperCase()}`] ?? '';
  return text.split(/\r?\n/).map((line) => plain(name, line.trim())).filter(Boolean);
}

/** No value has a use for control characters; a line feed is a way into logs and the runner's files. */
function plain(name, text) {
  return /\p{Cc}/u.test(text) ? fail(`input \`${name}\` holds a control character`) : text;
}

/** Absolute, so that it means the same in both runs and cannot begin with a dash; empty stays empty. */
function path(text) {
  return text && resolve(text);
}

function runner(name) {
  return process.env[name] || fail(`${name} is not set; this is to be run by a GitHub Actions runner`);
}

function save(values) {
  const end = `end-${randomUUID()}`;
  const text = Object.entries(values).map(([name, value]) => `${name}<<${end}\n${value}\n${end}\n`);
  appendFileSync(runner('GITHUB_STATE'), text.join(''));
}

function explain(code) {
  return `exit code ${code}${MEANING[code] ? `: ${MEANING[code]}` : ''}`;
}

function reason(error) {
  return error.cause ? `${error.message}: ${reason(error.cause)}` : error.message;
}

/** A workflow command; its text cannot end it and begin another. */
function tell(command, text) {
  const data = text.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  console.log(`::${command} title=machine-id::${data}`);
}

try {
  await (process.env.STATE_phase === 'post' ? post() : main());
} catch (error) {
  tell('error', error instanceof Failure ? error.message : error.stack);
  process.exitCode = error instanceof Failure ? error.code : 1;
}
