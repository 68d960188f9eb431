// Runs the action's program as a runner does, main and post, and looks at what it calls, says and leaves behind.
// By itself against `fake-machine-id`. With MACHINE_ID_BINARY against the real one, which the fake then stands before,
// writing down the calls; what the real one cannot be told to do is skipped, and a real login needs MACHINE_ID_AUTHORITY,
// MACHINE_ID_TOKEN (and MACHINE_ID_CA_FILE), ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN (and
// SSL_CERT_FILE).

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const action = path.join(here, '../../ci-examples/github');
const fake = path.join(here, 'fake-machine-id');
const sha256 = createHash('sha256').update(fs.readFileSync(fake)).digest('hex');

const real = process.env.MACHINE_ID_BINARY;
const endpoint = process.env.ACTIONS_ID_TOKEN_REQUEST_URL;
const onlyFake = { skip: real ? 'only the fake can be told to' : false };
const needsAuthority = { skip: real && !endpoint ? 'needs an authority and a token endpoint' : false };

const basic = {
  authority: process.env.MACHINE_ID_AUTHORITY ?? 'https://127.0.0.1:1',
  token: process.env.MACHINE_ID_TOKEN ?? 'github-deploy',
  'ca-file': process.env.MACHINE_ID_CA_FILE ?? '',
  binary: fake,
};

/** Reads a runner's file of `name<<delimiter` blocks, and nothing else. */
function parse(file) {
  const values = {};
  const rest = fs.readFileSync(file, 'utf8').split('\n');
  assert.equal(rest.pop(), '');
  while (rest.length > 0) {
    const [, name, end] = /^(.+?)<<(.+)$/.exec(rest.shift());
    const length = rest.indexOf(end);
    assert.notEqual(length, -1, `unfinished ${name}`);
    values[name] = rest.splice(0, length).join('\n');
    rest.shift();
  }
  return values;
}

/** One job on one runner: its folders, its files, and the state that goes from main to post. */
class Job {
  constructor(t) {
    this.root = fs.mkdtempSync(path.join(tmpdir(), 'action-test-'));
    t.after(() => fs.rmSync(this.root, { recursive: true, force: true }));
    this.temp = this.path('temp');
    this.log = this.path('calls');
    this.state = {};
    this.program = path.join(action, 'machine-id.mjs');
    fs.mkdirSync(this.temp);
    fs.mkdirSync(this.path('workspace'));
    fs.writeFileSync(this.log, '');
  }

  path(name) {
    return path.join(this.root, name);
  }

  /** Starts a phase; `inputs` left out are empty, as the runner sets them. */
  start(inputs, env = {}) {
    const files = ['GITHUB_OUTPUT', 'GITHUB_ENV', 'GITHUB_PATH', 'GITHUB_STATE', 'GITHUB_STEP_SUMMARY'];
    for (const name of files) fs.writeFileSync(this.path(name), '');
    const runner = {
      PATH: process.env.PATH,
      SSL_CERT_FILE: process.env.SSL_CERT_FILE,
      GITHUB_ACTIONS: 'true',
      RUNNER_TEMP: this.temp,
      RUNNER_OS: 'Linux',
      RUNNER_ARCH: 'X64',
      ACTIONS_ID_TOKEN_REQUEST_URL: endpoint ?? 'https://127.0.0.1:1/token?api-version=2.0',
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN ?? 'request-secret',
      FAKE_LOG: this.log,
      ...(real && { MACHINE_ID_BINARY: real }),
      ...Object.fromEntries(files.map((name) => [name, this.path(name)])),
      ...Object.fromEntries(Object.entries(inputs).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])),
      ...Object.fromEntries(Object.entries(this.state).map(([name, value]) => [`STATE_${name}`, value])),
      ...env,
    };
    const defined = Object.fromEntries(Object.entries(runner).filter(([, value]) => value !== undefined));
    return spawn(process.execPath, [this.program], { cwd: this.path('workspace'), env: defined });
  }

  async finish(child) {
    const text = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) child[name].on('data', (data) => (text[name] += data));
    const [code] = await once(child, 'close');
    Object.assign(this.state, parse(this.path('GITHUB_STATE')));
    const commands = `${text.stdout}${text.stderr}`.split('\n').filter((line) => line.trim().startsWith('::'));
    return { code, ...text, commands, outputs: parse(this.path('GITHUB_OUTPUT')) };
  }

  main(inputs = {}, env = {}) {
    return this.finish(this.start({ ...basic, ...inputs }, env));
  }

  post(env = {}) {
    return this.finish(this.start({}, env));
  }

  /** A copy of the action that was published with a release: the fake. */
  published() {
    const folder = this.path('action');
    fs.cpSync(action, folder, { recursive: true });
    this.program = path.join(folder, 'machine-id.mjs');
    const sums = { version: '9.9.9', sha256: { 'x86_64-unknown-linux-musl': sha256 } };
    fs.writeFileSync(path.join(folder, 'checksums.json'), JSON.stringify(sums));
    return this;
  }

  /** How machine-id was called so far. */
  calls() {
    return fs.readFileSync(this.log, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }

  /** Everything under the runner's temporary folder. */
  left() {
    return fs.readdirSync(this.temp);
  }
}

async function serve(t, handler) {
  const server = http.createServer(handler);
  t.after(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

test('main gets certificates, post takes them away', needsAuthority, async (t) => {
  const job = new Job(t);
  const main = await job.main();
  assert.equal(main.code, 0, main.stderr);
  const { destination } = main.outputs;
  assert.equal(path.dirname(path.dirname(destination)), job.temp);
  assert.equal(fs.statSync(path.dirname(destination)).mode & 0o777, 0o700);
  assert.equal(main.outputs['ssh-config'], path.join(destination, 'ssh_config'));
  for (const name of ['identity-file', 'expires-at', 'issuance-id']) assert.ok(main.outputs[name], name);
  assert.ok(fs.existsSync(path.join(destination, 'manifest.json')));
  assert.equal(parse(job.path('GITHUB_ENV')).MACHINE_ID_DESTINATION, destination);
  assert.notEqual(fs.readFileSync(job.path('GITHUB_STEP_SUMMARY'), 'utf8'), '');

  const post = await job.post();
  assert.equal(post.code, 0);
  assert.deepEqual(post.commands.filter((line) => line.startsWith('::warning')), []);
  assert.deepEqual(job.calls().at(-1).argv, ['cleanup', destination]);
  assert.deepEqual(job.left(), []);
});

test('every input is one argument, and the settings come back for the cleanup', onlyFake, async (t) => {
  const job = new Job(t);
  const inputs = {
    authority: 'https://id.example.com',
    token: ' github-deploy\n',
    output: 'ssh\r\n  database,service=orders,user=deploy  \n\n',
    role: 'deploy\norders',
    ttl: '30m',
    timeout: '20s',
    'ca-file': 'ca.crt',
    'ca-pin': 'sha256:00',
    destination: 'out',
  };
  assert.equal((await job.main(inputs, { RUNNER_DEBUG: '1' })).code, 0);
  const destination = path.join(fs.realpathSync(job.path('workspace')), 'out');
  const caFile = path.join(path.dirname(destination), 'ca.crt');
  const [{ argv }] = job.calls();
  assert.deepEqual(argv, [
    'once',
    '--join-method=github',
    '--authority=https://id.example.com',
    `--ca-file=${caFile}`,
    '--ca-pin=sha256:00',
    `--destination=${destination}`,
    '--token=github-deploy',
    '--ttl=30m',
    '--timeout=20s',
    '--output=ssh',
    '--output=database,service=orders,user=deploy',
    '--role=deploy',
    '--role=orders',
    '-v',
  ]);
  assert.ok(!argv.some((arg) => arg.includes('request-secret')));

  await job.post();
  const { argv: cleanup, env } = job.calls().at(-1);
  assert.deepEqual(cleanup, ['cleanup', destination]);
  assert.equal(env.MACHINE_ID_AUTHORITY, 'https://id.example.com');
  assert.equal(env.MACHINE_ID_CA_FILE, caFile);
  assert.equal(env.MACHINE_ID_CA_PIN, 'sha256:00');
});

test('without a token endpoint the job is told so', async (t) => {
  const job = new Job(t);
  const main = await job.main({}, { ACTIONS_ID_TOKEN_REQUEST_URL: undefined, ACTIONS_ID_TOKEN_REQUEST_TOKEN: undefined });
  assert.equal(main.code, 3);
  assert.match(main.stdout, /^::error title=machine-id::machine-id once failed with exit code 3: .*id-token: write/m);
  assert.equal((await job.post()).code, 0);
});

test('a refusal keeps its exit code, and post still cleans up', onlyFake, async (t) => {
  const job = new Job(t);
  const main = await job.main({}, { FAKE_ONCE: '4' });
  assert.equal(main.code, 4);
  assert.match(main.stdout, /exit code 4: the authority refused/);
  const post = await job.post();
  assert.equal(post.code, 0);
  assert.deepEqual(job.calls().map(({ argv }) => argv[0]), ['once', 'cleanup']);
  assert.deepEqual(post.commands, []);
});

test('what a killed machine-id left half-written is wiped', onlyFake, async (t) => {
  const job = new Job(t);
  assert.equal((await job.main({}, { FAKE_ONCE: 'die' })).code, 137);
  assert.equal(job.left().length, 1);
  assert.equal((await job.post()).code, 0);
  assert.deepEqual(job.left(), []);
});

test('a folder of the user is left to machine-id, which knows its own', onlyFake, async (t) => {
  const job = new Job(t);
  const destination = job.path('precious');
  fs.mkdirSync(destination);
  fs.writeFileSync(path.join(destination, 'file'), 'precious');
  assert.equal((await job.main({ destination }, { FAKE_ONCE: '6' })).code, 6);
  assert.equal((await job.post()).code, 0);
  assert.deepEqual(fs.readdirSync(destination), ['file']);
});

test('cancelling reaches machine-id', onlyFake, async (t) => {
  const job = new Job(t);
  const child = job.start(basic, { FAKE_ONCE: 'hang' });
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  assert.equal((await job.finish(child)).code, 130);
  assert.equal((await job.post()).code, 0);
  assert.deepEqual(job.left(), []);
});

test('a cleanup that fails only warns', onlyFake, async (t) => {
  const job = new Job(t);
  assert.equal((await job.main()).code, 0);
  const post = await job.post({ FAKE_CLEANUP: '5' });
  assert.equal(post.code, 0);
  assert.match(post.stdout, /^::warning title=machine-id::machine-id cleanup failed with exit code 5: .*%0Athe cert/m);
  assert.deepEqual(job.left(), []);
});

test('a cleanup that cannot start only warns', { timeout: 20_000 }, async (t) => {
  const never = new Job(t);
  assert.equal((await never.main({ binary: '/gone' })).code, 127);
  assert.deepEqual((await never.post()).commands, []);
  const job = new Job(t);
  const binary = job.path('gone');
  fs.copyFileSync(fake, binary);
  await job.main({ binary, timeout: '1s' }); // the real one finds nobody
  fs.rmSync(binary);
  const post = await job.post();
  assert.equal(post.code, 0);
  assert.match(post.stdout, /^::warning title=machine-id::cannot run .*gone: ENOENT/m);
});

test('a binary that has changed since is not run, and the keys go all the same', onlyFake, async (t) => {
  for (const inputs of [{}, { sha256 }]) {
    const job = new Job(t);
    const binary = job.path('machine-id');
    const destination = job.path('certificates');
    fs.copyFileSync(fake, binary);
    assert.equal((await job.main({ ...inputs, binary, destination })).code, 0);
    assert.equal(job.state.sha256, sha256);
    fs.mkdirSync(path.join(destination, 'second'));
    for (const name of ['second/tls.key', 'second/client.o.key', 'identity', 'second/tls.crt', 'theirs']) {
      fs.writeFileSync(path.join(destination, name), 'x');
    }
    fs.writeFileSync(binary, `#!/bin/sh\ntouch ${job.path('pwned')}\n`);
    const post = await job.post();
    assert.equal(post.code, 0);
    assert.match(post.stdout, /^::warning title=machine-id::not running .*: it has changed .*%0Athe certificates may stay/m);
    assert.ok(!fs.existsSync(job.path('pwned')));
    const left = fs.readdirSync(destination, { recursive: true }).sort();
    assert.deepEqual(left, ['manifest.json', 'second', 'second/tls.crt', 'ssh_config', 'theirs']);
    assert.deepEqual([job.calls().map(({ argv }) => argv[0]), job.left()], [['once'], []]);
  }
});

test('a cleanup that fails leaves no keys', onlyFake, async (t) => {
  const job = new Job(t);
  const destination = job.path('certificates');
  await job.main({ destination });
  assert.equal((await job.post({ FAKE_CLEANUP: '5' })).code, 0);
  assert.deepEqual(fs.readdirSync(destination).sort(), ['manifest.json', 'ssh_config']);
});

test('post with nothing to undo does nothing', async (t) => {
  const job = new Job(t);
  const main = await job.main({}, { RUNNER_TEMP: '' }); // fails at the first step
  assert.equal(main.code, 2);
  assert.deepEqual(job.state, { phase: 'post' });
  const post = await job.post();
  assert.deepEqual([post.code, post.stdout, post.stderr], [0, '', '']);
  assert.deepEqual(job.calls(), []);
});

test('hostile inputs stay arguments', async (t) => {
  const job = new Job(t);
  const token = '::set-output name=destination::/evil';
  const role = ['--config=/evil', '-- sh -c "touch pwned"', "$(touch pwned) `touch pwned` ' \" \\ ; & |"];
  const main = await job.main({ token, role: role.join('\n'), destination: '--config=evil', ttl: '##[add-mask]a' });
  const workspace = fs.realpathSync(job.path('workspace'));
  const [{ argv }] = job.calls();
  assert.deepEqual(argv.slice(argv.indexOf(`--destination=${workspace}/--config=evil`) + 1), [
    `--token=${token}`,
    '--ttl=##[add-mask]a',
    ...role.map((name) => `--role=${name}`),
  ]);
  assert.ok(!fs.existsSync(path.join(workspace, 'pwned')));
  assert.ok(!main.stdout.includes('##['));
  assert.deepEqual(main.commands.filter((line) => /^::(?!error |warning |add-mask::|group::|endgroup::)/.test(line)), []);
  if (!real) assert.equal(main.code, 0, main.stderr);
  else assert.ok(main.code > 0);
});

test('control characters are refused before anything runs', async (t) => {
  for (const [name, value] of [
    ['token', 'a\n::set-output name=destination::/evil'],
    ['destination', 'a\n::add-mask::b'],
    ['authority', 'https://id.example.com\r\n::stop-commands::x'],
    ['role', 'deploy\u0007'],
    ['output', 'ssh\u001b[31m'],
  ]) {
    const job = new Job(t);
    const main = await job.main({ [name]: value });
    assert.equal(main.code, 2);
    assert.deepEqual(main.commands, [`::error title=machine-id::input \`${name}\` holds a control character`]);
    assert.deepEqual(job.calls(), []);
    assert.equal((await job.post()).code, 0);
    assert.deepEqual(job.left(), []);
  }
});

test('a message cannot end its workflow command and begin another', async (t) => {
  const job = new Job(t);
  const main = await job.main({ binary: '/nowhere/100%0A::add-mask::x' });
  assert.equal(main.code, 127);
  assert.match(main.stdout, /cannot run \/nowhere\/100%250A::add-mask::x: /);
  assert.equal(main.commands.length, 1);
});

test('a binary of another SHA-256 is never run', async (t) => {
  const job = new Job(t);
  const main = await job.main({ sha256: '0'.repeat(64) });
  assert.equal(main.code, 2);
  assert.match(main.stdout, new RegExp(`not running machine-id: its SHA-256 is ${sha256}, not 0{64}`));
  assert.equal((await job.post()).code, 0);
  assert.deepEqual(job.calls(), []);
});

test('a binary of the right SHA-256 is run', onlyFake, async (t) => {
  const job = new Job(t);
  assert.equal((await job.main({ sha256: sha256.toUpperCase() })).code, 0);
  assert.equal(job.calls().length, 1);
});

test('a download is retried, verified, run and removed', onlyFake, async (t) => {
  const job = new Job(t);
  let requests = 0;
  const url = await serve(t, (request, response) => {
    requests += 1;
    if (requests === 1) response.writeHead(503).end();
    else if (request.url === '/file') response.end(fs.readFileSync(fake));
    else response.writeHead(302, { location: '/file' }).end();
  });
  const main = await job.main({ binary: '', sha256, 'download-url': `${url}/machine-id` });
  assert.equal(main.code, 0, main.stdout);
  assert.equal(requests, 3);
  const { binary } = job.state;
  assert.equal(fs.statSync(binary).mode & 0o777, 0o700);
  assert.equal(path.dirname(path.dirname(binary)), job.temp);
  assert.equal((await job.post()).code, 0);
  assert.deepEqual(job.calls().map(({ argv }) => argv[0]), ['once', 'cleanup']);
  assert.deepEqual(job.left(), []);
});

test('a download of another SHA-256 is not even written', async (t) => {
  const job = new Job(t);
  const url = await serve(t, (request, response) => response.end('#!/bin/sh\necho pwned\n'));
  const main = await job.main({ binary: '', sha256, 'download-url': url });
  assert.equal(main.code, 2);
  assert.match(main.stdout, /not running machine-id/);
  assert.deepEqual(fs.readdirSync(job.state.folder), []);
  assert.equal((await job.post()).code, 0);
  assert.deepEqual([job.calls(), job.left()], [[], []]);
});

test('a download that is not there fails at once, without its query', async (t) => {
  const job = new Job(t);
  let requests = 0;
  const url = await serve(t, (request, response) => response.writeHead(404).end(String((requests += 1))));
  const main = await job.main({ binary: '', sha256, 'download-url': `${url}/machine-id?key=secret` });
  assert.equal(main.code, 5);
  assert.match(main.stdout, /cannot download http:\/\/127\.0\.0\.1:\d+\/machine-id: status 404: is there such a release/);
  assert.ok(!main.stdout.includes('secret'));
  assert.equal(requests, 1);
});

/** A mirror over TLS that only a proxy can reach, and that proxy. */
async function behindProxy(t, job, answer) {
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
  const files = ['-subj', '/CN=mirror', '-addext', 'subjectAltName=DNS:mirror.invalid', '-keyout', job.path('key'), '-out', job.path('crt')];
  execFileSync('openssl', [...request, ...files], { stdio: 'ignore' });
  const mirror = https.createServer({ key: fs.readFileSync(job.path('key')), cert: fs.readFileSync(job.path('crt')) }, (asked, response) => {
    if (asked.url === '/file') response.end(fs.readFileSync(fake));
    else response.writeHead(302, { location: '/file' }).end();
  });
  const seen = [];
  const proxy = http.createServer((asked, response) => response.writeHead(400).end());
  proxy.on('connect', (asked, socket) => {
    seen.push([asked.url, asked.headers['proxy-authorization']]);
    socket.on('error', () => {});
    if (answer !== 200) return socket.end(`HTTP/1.1 ${answer} Test\r\n\r\n`);
    const server = net.connect(mirror.address().port, '127.0.0.1', () => socket.write('HTTP/1.1 200 Test\r\n\r\n'));
    server.on('error', () => {});
    return socket.pipe(server).pipe(socket);
  });
  for (const server of [mirror, proxy]) {
    t.after(() => (server.closeAllConnections?.(), server.close()));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  return { seen, host: `127.0.0.1:${proxy.address().port}`, trust: { NODE_EXTRA_CA_CERTS: job.path('crt') } };
}

const mirrored = { binary: '', sha256, 'download-url': 'https://mirror.invalid/machine-id' };

test('a download goes through the proxy', onlyFake, async (t) => {
  const { seen, host, trust } = await behindProxy(t, new Job(t), 200);
  for (const env of [{ HTTPS_PROXY: `"http://us%65r:p%40ss@${host}"\n` }, { all_proxy: host, HTTPS_PROXY: '' }]) {
    const main = await new Job(t).main(mirrored, { ...trust, ...env });
    assert.equal(main.code, 0, main.stdout);
  }
  const credentials = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;
  assert.deepEqual(seen, [...Array(2).fill(['mirror.invalid:443', credentials]), ...Array(2).fill(['mirror.invalid:443', undefined])]);
  // Whose certificate nobody trusts is not downloaded from.
  const untrusted = await new Job(t).main(mirrored, { HTTPS_PROXY: host });
  assert.match(untrusted.stdout, /cannot download https:\/\/mirror\.invalid\/machine-id: .*certificate/);
});

test('a proxy that refuses is named, and one that is not understood is not passed by', async (t) => {
  const { seen, host } = await behindProxy(t, new Job(t), 407);
  const main = await new Job(t).main(mirrored, { HTTPS_PROXY: `http://user:hunter2@${host}` });
  assert.equal(main.code, 5);
  assert.match(main.stdout, new RegExp(`the proxy ${host} answered with status 407`));
  assert.equal(seen.length, 1);
  for (const value of ['http://user:hunter2@pro xy:1', 'socks5://user:hunter2@127.0.0.1:1', 'http://user:1#hunter2@127.0.0.1:1', ' ']) {
    const refused = await new Job(t).main(mirrored, { https_proxy: value });
    assert.equal(refused.code, 2, value);
    assert.match(refused.stdout, /https_proxy is not a proxy that can be used/);
    assert.ok(!refused.stdout.includes('hunter2'));
  }
  const said = async (spared) => (await new Job(t).main(mirrored, { HTTPS_PROXY: `http://${host}`, NO_PROXY: spared })).stdout;
  const direct = ['mirror.invalid', '.invalid', 'a *.invalid', 'mirror.invalid:443', '*', 'x,INVALID'];
  const through = ['irror.invalid', 'mirror.invalid:444', '10.0.0.0/8', '::1', '.mirror.invalid.example'];
  const all = await Promise.all([...direct, ...through].map(async (spared) => [spared, await said(spared)]));
  for (const [spared, stdout] of all) {
    assert.match(stdout, direct.includes(spared) ? /getaddrinfo/ : /answered with status 407/, spared);
  }
});

test('where to get machine-id must be clear and safe', async (t) => {
  const download = { binary: '', sha256, version: '0.1.0' };
  for (const [inputs, message, env] of [
    [{ binary: '' }, /no machine-id on this runner, and no checksums of a release in this action/],
    [{ ...download, sha256: '', version: '', 'download-url': 'https://mirror.invalid/x' }, /`sha256` must have/],
    [{ ...download, sha256: '' }, /`sha256` must have/],
    [{ ...download, sha256: 'abc' }, /`sha256` must have/],
    [{ ...download, binary: fake }, /give either/],
    [{ ...download, version: '' }, /`version` must be/],
    [{ ...download, version: '../../../evil/evil/releases/download/v1.0.0' }, /`version` must be/],
    [{ ...download, 'download-url': 'http://example.com/machine-id' }, /must be an https URL/],
    [{ ...download, 'download-url': 'http://127.0.0.1.example.com/machine-id' }, /must be an https URL/],
    [{ ...download, 'download-url': 'file:///bin/sh' }, /must be an https URL/],
    [{ ...download, 'download-url': 'machine-id' }, /must be an https URL/],
    [download, /no release for Windows X64/, { RUNNER_OS: 'Windows' }],
  ]) {
    const job = new Job(t);
    const main = await job.main(inputs, env);
    assert.equal(main.code, 2);
    assert.match(main.stdout, message);
    assert.deepEqual(job.calls(), []);
  }
});

test('without a word the binary of the runner is used, and none of the workspace', onlyFake, async (t) => {
  const job = new Job(t);
  fs.mkdirSync(job.path('bin'));
  fs.copyFileSync(fake, job.path('bin/machine-id'));
  fs.mkdirSync(job.path('workspace/bin'));
  fs.writeFileSync(job.path('workspace/bin/machine-id'), `#!/bin/sh\ntouch ${job.path('pwned')}\n`, { mode: 0o755 });
  const PATH = `bin::${job.path('bin')}:${process.env.PATH}`;
  const main = await job.main({ binary: '' }, { PATH });
  assert.equal(main.code, 0, main.stdout);
  assert.equal(main.outputs.binary, job.path('bin/machine-id'));
  assert.ok(!fs.existsSync(job.path('pwned')));
  assert.equal((await job.post({ PATH })).code, 0);
  assert.deepEqual(job.calls().map(({ argv }) => argv[0]), ['once', 'cleanup']);
});

test('a published action knows its release, and a runner that stays keeps it', onlyFake, async (t) => {
  let requests = 0;
  const url = await serve(t, (request, response) => {
    requests += 1;
    response.end(fs.readFileSync(fake));
  });
  const first = new Job(t).published();
  const cache = { RUNNER_TOOL_CACHE: first.path('cache') };
  const inputs = { binary: '', 'download-url': url };
  assert.equal((await first.main(inputs, cache)).code, 0);
  const kept = first.path(`cache/machine-id/${sha256}/machine-id`);
  assert.deepEqual([requests, fs.readFileSync(kept)], [1, fs.readFileSync(fake)]);
  const second = new Job(t).published();
  const main = await second.main(inputs, cache);
  assert.deepEqual([main.code, requests], [0, 1]);
  assert.equal(path.dirname(path.dirname(main.outputs.binary)), second.temp, 'a copy of its own is run');
  assert.equal((await second.post()).code, 0);
  assert.deepEqual(second.left(), []);
  // What somebody put there is not run, and makes room.
  fs.writeFileSync(kept, `#!/bin/sh\ntouch ${first.path('pwned')}\n`);
  assert.equal((await new Job(t).published().main(inputs, cache)).code, 0);
  assert.deepEqual([requests, fs.readFileSync(kept)], [2, fs.readFileSync(fake)]);
  assert.ok(!fs.existsSync(first.path('pwned')));
  // A cache that cannot be written to fails nobody.
  const full = { RUNNER_TOOL_CACHE: '/dev/null' };
  assert.equal((await new Job(t).published().main(inputs, full)).code, 0);
  // Of another release it has no checksums, and for another machine none.
  const other = await new Job(t).published().main({ binary: '', version: '9.9.8' });
  assert.match(other.stdout, /`sha256` must have/);
  const arm = await new Job(t).published().main({ binary: '', version: '9.9.9' }, { RUNNER_ARCH: 'ARM64' });
  assert.match(arm.stdout, /`sha256` must have/);
});

test('later steps get what the workflow wants them to have', onlyFake, async (t) => {
  const quiet = new Job(t);
  const main = await quiet.main({ export: 'false' });
  assert.equal(main.code, 0);
  assert.equal(fs.readFileSync(quiet.path('GITHUB_ENV'), 'utf8'), '');
  assert.ok(main.outputs.destination);
  const kept = new Job(t);
  const { destination } = (await kept.main({ cleanup: 'False' })).outputs;
  const post = await kept.post();
  assert.deepEqual([post.code, post.stdout, kept.calls().length], [0, '', 1]);
  assert.ok(fs.existsSync(path.join(destination, 'key')), 'the workflow takes them away itself');
  const wrong = await new Job(t).main({ cleanup: 'yes' });
  assert.deepEqual([wrong.code, wrong.commands.length], [2, 1]);
  assert.match(wrong.stdout, /input `cleanup` must be true or false/);
});

test('it can do no more than to put machine-id on the path', async (t) => {
  const job = new Job(t).published();
  const url = await serve(t, (request, response) => response.end(fs.readFileSync(fake)));
  const main = await job.main({ authority: '', token: '', binary: '', 'setup-only': 'true', 'download-url': url });
  assert.equal(main.code, 0, main.stdout);
  assert.equal(fs.readFileSync(job.path('GITHUB_PATH'), 'utf8'), `${path.dirname(main.outputs.binary)}\n`);
  const post = await job.post();
  assert.deepEqual([post.code, post.stdout, job.calls(), job.left()], [0, '', [], []]);
});

test('several uses in one job know their own', onlyFake, async (t) => {
  const job = new Job(t);
  const uses = [];
  for (const token of ['one', 'two']) {
    job.state = {};
    const { destination } = (await job.main({ token })).outputs;
    uses.unshift({ destination, state: job.state });
  }
  assert.notEqual(uses[0].destination, uses[1].destination);
  for (const { destination, state } of uses) {
    job.state = state;
    assert.equal((await job.post({ MACHINE_ID_DESTINATION: uses[0].destination })).code, 0);
    assert.deepEqual(job.calls().at(-1).argv, ['cleanup', destination]);
  }
  assert.deepEqual(job.left(), []);
});

test('checksums are written from the executables of a release', (t) => {
  const job = new Job(t).published();
  const release = job.path('release');
  fs.mkdirSync(release);
  for (const target of ['x86_64-unknown-linux-musl', 'aarch64-apple-darwin']) fs.copyFileSync(fake, path.join(release, `machine-id-${target}`));
  const update = (...args) => execFileSync(process.execPath, [job.path('action/update-checksums.mjs'), ...args], { stdio: 'pipe' });
  update('1.2.3', release);
  const written = JSON.parse(fs.readFileSync(job.path('action/checksums.json'), 'utf8'));
  assert.deepEqual(written, { version: '1.2.3', sha256: { 'aarch64-apple-darwin': sha256, 'x86_64-unknown-linux-musl': sha256 } });
  for (const args of [[], ['1.2'], ['v1.2.3', release], ['1.2.3', job.temp]]) assert.throws(() => update(...args), /Command failed/);
});

test('action.yml declares the inputs that the program reads', () => {
  const section = /^inputs:\n((?:  .*\n|\n)+)/m.exec(fs.readFileSync(path.join(action, 'action.yml'), 'utf8'))[1];
  const declared = [...section.matchAll(/^  ([a-z0-9-]+):$/gm)].map((match) => match[1]);
  const program = fs.readFileSync(path.join(action, 'machine-id.mjs'), 'utf8');
  const read = new Set([...program.matchAll(/\b(?:input|lines|choice)\('([a-z0-9-]+)'/g)].map((match) => match[1]));
  assert.deepEqual(declared.sort(), [...read].sort());
});
