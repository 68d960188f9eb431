// The action's whole program. The runner starts it twice: in its turn, to get certificates for the job, and when the
// job ends, however it ends, to revoke and wipe them. What the second run must know, the first keeps in GITHUB_STATE.
// Inputs become arguments or environment of machine-id, never part of a command line that a shell would read.

import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  accessSync, appendFileSync, constants as constantsOfFiles, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync,
} from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import { constants } from 'node:os';
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';

const RELEASES = 'https://github.com/your-org/machine-id/releases/download';
const TARGETS = {
  'Linux X64': 'x86_64-unknown-linux-musl',
  'Linux ARM64': 'aarch64-unknown-linux-musl',
  'macOS X64': 'x86_64-apple-darwin',
  'macOS ARM64': 'aarch64-apple-darwin',
};
const DOWNLOAD = { attempts: 3, timeout: 60_000, limit: 64 << 20, redirects: 5, pause: 60 };
const CLEANUP_TIMEOUT = 60_000;
// machine-id's files with a private key in them.
const KEYS = /^(key|identity|tls\.key|mongo\.crt|client\..+\.key|ssh_host|kubeconfig\.yaml)$/;

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

  const binary = await obtain(folder);
  // Kept by the runner: what stands beside the binary could be changed with it.
  save({ binary, sha256: digest(binary) });
  tellFile('GITHUB_OUTPUT', { binary });
  if (choice('setup-only', false)) return appendFileSync(runner('GITHUB_PATH'), `${dirname(binary)}\n`);

  const settings = { authority: input('authority'), 'ca-file': path(input('ca-file')), 'ca-pin': input('ca-pin') };
  const destination = path(input('destination')) || join(folder, 'certificates');
  const limits = { token: input('token'), ttl: input('ttl'), timeout: input('timeout') };
  const args = ['once', ...options({ 'join-method': 'github', ...settings, destination, ...limits })];
  args.push(...lines('output').map((type) => `--output=${type}`));
  args.push(...lines('role').map((name) => `--role=${name}`));
  if (process.env.RUNNER_DEBUG === '1') args.push('-v');

  const env = { ...process.env };
  if (!choice('export', true)) delete env.GITHUB_ENV;
  save({ destination, cleanup: choice('cleanup', true), ...settings }); // before there are keys, so that even half of them are wiped
  const code = await run(binary, args, env);
  if (code !== 0) fail(`machine-id once failed with ${explain(code)}`, code);
}

/** Nothing that goes wrong here may fail a job that succeeded: it warns. */
async function post() {
  const { STATE_folder: folder, STATE_binary: binary, STATE_sha256: sha256, STATE_destination: destination } = process.env;
  if (process.env.STATE_cleanup === 'false') return; // its keys are in use, and the binary for the step that takes them away
  const env = { ...process.env };
  for (const name of ['authority', 'ca-file', 'ca-pin']) {
    const value = process.env[`STATE_${name}`];
    if (value) env[`MACHINE_ID_${name.toUpperCase().replace('-', '_')}`] = value;
  }
  try {
    // Every step since could write to it.
    if (destination && digest(binary) !== sha256) fail(`not running ${binary}: it has changed since the job got its certificates`);
    const code = destination ? await run(binary, ['cleanup', destination], env, CLEANUP_TIMEOUT) : 0;
    if (code !== 0) fail(`machine-id cleanup failed with ${explain(code)}`);
  } catch (error) {
    tell('warning', `${reason(error)}\nthe certificates may stay valid until they expire`);
  }
  try {
    if (destination) removeKeys(destination); // what is left where machine-id did not run, or failed
    if (folder) rmSync(folder, { recursive: true, force: true }); // ours alone: what was half-written goes with it
  } catch (error) {
    tell('warning', reason(error));
  }
}

/** Keys go whether machine-id could be run or not: from a folder that it wrote, those files of its own that hold one. */
function removeKeys(destination) {
  if (!existsSync(join(destination, 'manifest.json'))) return;
  const folders = readdirSync(destination, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const folder of [destination, ...folders.map(({ name }) => join(destination, name))]) {
    for (const name of readdirSync(folder).filter((name) => KEYS.test(name))) rmSync(join(folder, name), { force: true });
  }
}

function hash(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The SHA-256 of a file. */
function digest(file) {
  try {
    return hash(readFileSync(file));
  } catch (error) {
    return fail(`cannot run ${file}: ${reason(error)}`, error.code === 'ENOENT' ? 127 : 126);
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

/**
 * The path of the executable: given, on the runner, or downloaded; with a SHA-256 to match, what does not match it is
 * never run. Where nothing is said, it is the release that this action has the checksums of, or what the runner has.
 */
async function obtain(folder) {
  const given = path(input('binary'));
  const asked = input('version') || input('download-url');
  const wanted = input('sha256').toLowerCase() || (given ? '' : bundled());
  if (given && asked) fail('give either `binary`, or what to download');
  if (given && !wanted) return given;
  if (!wanted && !asked) return installed() ?? fail('no machine-id on this runner, and no checksums of a release in this action: give `version` and `sha256`, or the path of a `binary`');
  if (!/^[0-9a-f]{64}$/.test(wanted)) {
    fail('`sha256` must have the 64 hexadecimal digits of the executable to download; or give the path of a `binary`');
  }
  const cached = given ? undefined : cache(wanted);
  const kept = cached && existsSync(cached) ? readFileSync(cached) : undefined;
  const isKept = kept && hash(kept) === wanted;
  const bytes = given ? readFileSync(given) : isKept ? kept : await download(source());
  const found = hash(bytes);
  if (found !== wanted) fail(`not running machine-id: its SHA-256 is ${found}, not ${wanted}`);
  if (given) return given;
  // In a folder of this job's alone, so that what was looked at is what is run.
  const binary = join(folder, 'machine-id');
  writeFileSync(binary, bytes, { mode: 0o700, flag: 'wx' });
  if (cached && !isKept) keep(cached, bytes);
  return binary;
}

/** The SHA-256 of the release that is asked for, or of the action's own, where the action has it. */
function bundled() {
  const { version, sha256 } = JSON.parse(readFileSync(new URL('checksums.json', import.meta.url), 'utf8'));
  const asked = input('version').replace(/^v/, '') || version;
  return asked === version ? sha256[TARGETS[machine()]] ?? '' : '';
}

/** What the runner has already: of absolute folders alone, so that nothing in the workspace passes for it. */
function installed() {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => isAbsolute(folder));
  return folders.map((folder) => join(folder, 'machine-id')).find((file) => {
    try {
      accessSync(file, constantsOfFiles.X_OK);
      return statSync(file).isFile();
    } catch {
      return false;
    }
  });
}

/** Where a runner that stays keeps it between jobs; what lies there is believed by its SHA-256 alone. */
function cache(wanted) {
  const folder = process.env.RUNNER_TOOL_CACHE;
  return folder && join(folder, 'machine-id', wanted, 'machine-id');
}

/** The next job may do without the download; this one does not need it. */
function keep(file, bytes) {
  try {
    mkdirSync(dirname(file), { recursive: true });
    const fresh = `${file}.${randomUUID()}`;
    writeFileSync(fresh, bytes, { mode: 0o755, flag: 'wx' });
    renameSync(fresh, file);
  } catch (error) {
    console.log(`not kept for the next job: ${reason(error)}`);
  }
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
  const own = JSON.parse(readFileSync(new URL('checksums.json', import.meta.url), 'utf8')).version;
  const version = input('version').replace(/^v/, '') || (input('sha256') ? '' : own);
  if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version)) fail('`version` must be a release, such as 0.1.0');
  const target = TARGETS[machine()] ?? fail(`no release for ${machine()}: build it and give its path in \`binary\``);
  return new URL(`${RELEASES}/v${version}/machine-id-${target}`);
}

function machine() {
  return `${runner('RUNNER_OS')} ${runner('RUNNER_ARCH')}`;
}

async function download(url, attempt = 1) {
  try {
    const response = await get(url, AbortSignal.timeout(DOWNLOAD.timeout));
    const chunks = [];
    let size = 0;
    for await (const chunk of response) {
      size += chunk.length;
      if (size > DOWNLOAD.limit) throw final('too large');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    const name = url.origin + url.pathname; // a mirror's query may hold its credentials
    if (error instanceof Failure) throw error;
    if (error.final || attempt === DOWNLOAD.attempts) fail(`cannot download ${name}: ${reason(error)}`, 5);
    // With chance in it, so that jobs that failed together do not come back together.
    await sleep(1000 * ((error.after ?? 0) + attempt * (0.5 + Math.random())));
    return download(url, attempt + 1);
  }
}

/** The answer with the file, through redirects and the runner's proxy: `fetch` asks no proxy in any Node of a runner. */
async function get(url, signal, left = DOWNLOAD.redirects) {
  const proxy = proxyFor(url);
  const socket = proxy && (await tunnel(proxy, url, signal));
  // The name in the certificate is the server's; an address is not sent as one.
  const secured = () => tls.connect({ socket, host: url.hostname, servername: isIP(bare(url)) ? '' : url.hostname });
  const options = { signal, headers: { 'user-agent': 'machine-id' }, ...(socket && { createConnection: secured }) };
  const request = (url.protocol === 'https:' ? https : http).get(url, options);
  const [response] = await once(request, 'response', { signal });
  const { statusCode: status, headers } = response;
  if (status === 200) return response;
  response.resume();
  if ([301, 302, 303, 307, 308].includes(status) && left > 0 && headers.location) {
    const next = new URL(headers.location, url);
    if (next.protocol !== 'https:' && url.protocol === 'https:') throw final(`status ${status} to what is not https`);
    return get(next, signal, left - 1);
  }
  const after = Math.min(Number(headers['retry-after']) || 0, DOWNLOAD.pause);
  const why = status === 404 ? 'status 404: is there such a release, for this machine?' : `status ${status}`;
  throw Object.assign(new Error(why), { final: status < 429, after });
}

/** A connection to the URL's host through the proxy. */
async function tunnel(proxy, url, signal) {
  const path = `${url.hostname}:${url.port || 443}`;
  const credentials = [proxy.username, proxy.password].map(decodeURIComponent).join(':');
  const headers = { host: path, 'user-agent': 'machine-id' };
  if (credentials !== ':') headers['proxy-authorization'] = `Basic ${Buffer.from(credentials).toString('base64')}`;
  const { protocol, port } = proxy;
  const options = { method: 'CONNECT', host: bare(proxy), port: port || undefined, path, headers, signal, agent: false };
  const request = (protocol === 'https:' ? https : http).request(options).end();
  const [{ statusCode: status }, socket] = await once(request, 'connect', { signal });
  if (status === 200) return socket;
  socket.destroy();
  const error = new Error(`the proxy ${proxy.host} answered with status ${status}`);
  throw Object.assign(error, { final: status < 429 });
}

/** The proxy of the environment for this URL, read as machine-id does: what is not understood goes to nobody directly. */
function proxyFor(url) {
  const set = (...names) => names.find((name) => process.env[name]);
  const name = set('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy');
  if (!name || url.protocol !== 'https:') return undefined;
  const port = url.port || '443';
  const spared = (process.env[set('NO_PROXY', 'no_proxy')] ?? '').toLowerCase().split(/[,\s]+/).filter(Boolean);
  const spares = (entry) => {
    const [, host, only] = /^\*?(\[.*\]|[^:]*|.*:.*:.*?)(?::(\d+))?$/.exec(entry) ?? [];
    const domain = `.${(host ?? '').replace(/^\.|^\[|\]$/g, '')}`;
    return entry === '*' || (domain !== '.' && `.${bare(url)}`.endsWith(domain) && (!only || only === port));
  };
  if (spared.some(spares)) return undefined;
  const text = process.env[name].trim().replace(/^(["'])(.*)\1$/s, '$2').trim();
  const full = text.includes('://') ? text : `http://${text}`;
  const proxy = /[\s\p{Cc}]/u.test(full) || !URL.canParse(full) ? undefined : new URL(full);
  // `user:pa/ss@host` is another host, to a parser; and its text may be a secret, which no message repeats.
  const understood = ['http:', 'https:'].includes(proxy?.protocol) && !`${proxy.pathname}${proxy.search}${proxy.hash}`.includes('@');
  return understood ? proxy : fail(`${name} is not a proxy that can be used: it must be http://HOST:PORT or https://HOST:PORT`);
}

function bare({ hostname }) {
  return hostname.replace(/^\[|\]$/g, '');
}

function final(message) {
  return Object.assign(new Error(message), { final: true });
}

/** `--name=value`, one argument each, so that no value can pass for an option; empty ones are left to the defaults. */
function options(values) {
  return Object.entries(values).flatMap(([name, value]) => (value ? [`--${name}=${value}`] : []));
}

function input(name) {
  return plain(name, (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim());
}

function choice(name, usual) {
  const text = input(name).toLowerCase();
  if (text === '') return usual;
  return { true: true, false: false }[text] ?? fail(`input \`${name}\` must be true or false`);
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
  tellFile('GITHUB_STATE', values);
}

/** Appends to a file of the runner's; no value holds its delimiter. */
function tellFile(file, values) {
  const end = `end-${randomUUID()}`;
  const text = Object.entries(values).map(([name, value]) => `${name}<<${end}\n${value}\n${end}\n`);
  appendFileSync(runner(file), text.join(''));
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
