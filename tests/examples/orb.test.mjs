// Runs the orb's scripts as CircleCI does, step after step in one job, against `fake-machine-id` and a `curl` that
// copies a file.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const scripts = path.join(here, '../../ci-examples/circleci/orb/src/scripts');
const fake = path.join(here, 'fake-machine-id');
const sha256 = createHash('sha256').update(fs.readFileSync(fake)).digest('hex');

const names = ['AUTHORITY', 'TOKEN', 'OUTPUT', 'ROLE', 'TTL', 'CA_FILE', 'CA_PIN', 'TIMEOUT'];
const parameters = (values = {}) => Object.fromEntries(names.map((name) => [`ORB_${name}`, values[name] ?? '']));

class Job {
  constructor(t, { installed = true } = {}) {
    this.root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), 'orb-test-')));
    t.after(() => fs.rmSync(this.root, { recursive: true, force: true }));
    for (const name of ['bin', 'tmp', 'project']) fs.mkdirSync(this.path(name));
    for (const name of ['calls', 'bash_env']) fs.writeFileSync(this.path(name), '');
    if (installed) fs.symlinkSync(fake, this.path('bin/machine-id'));
    const curl = '#!/bin/bash\nprintf "%s\\n" "$@" >"$FAKE_LOG.curl"\nwhile [[ $1 != --output ]]; do shift; done\ncp "$FAKE_FILE" "$2"\n';
    fs.writeFileSync(this.path('bin/curl'), curl, { mode: 0o755 });
  }

  path(name) {
    return path.join(this.root, name);
  }

  /** Runs one of the orb's scripts, or any script, as the next step of the job. */
  step(script, env = {}) {
    const file = script.endsWith('.sh') ? path.join(scripts, script) : this.path('step');
    if (file === this.path('step')) fs.writeFileSync(file, script);
    const { status, stdout, stderr } = spawnSync('/bin/bash', ['-eo', 'pipefail', file], {
      cwd: this.path('project'),
      encoding: 'utf8',
      env: {
        PATH: `${this.path('bin')}:${process.env.PATH}`,
        TMPDIR: this.path('tmp'),
        BASH_ENV: this.path('bash_env'),
        CIRCLECI: 'true',
        FAKE_LOG: this.path('calls'),
        FAKE_FILE: fake,
        ...env,
      },
    });
    return { status, stdout, stderr };
  }

  calls() {
    return fs.readFileSync(this.path('calls'), 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }
}

test('install verifies, then puts machine-id on the PATH', (t) => {
  const job = new Job(t, { installed: false });
  const install = job.step('install.sh', { ORB_VERSION: 'v0.1.0', ORB_SHA256: sha256, ORB_DOWNLOAD_URL: '' });
  assert.equal(install.status, 0, install.stderr);
  const curl = fs.readFileSync(`${job.path('calls')}.curl`, 'utf8');
  assert.match(curl, /^--proto\n=https$/m);
  assert.match(curl, /^--url\nhttps:\/\/github\.com\/.*\/download\/v0\.1\.0\/machine-id-(x86_64|aarch64)-[a-z-]+$/m);
  assert.match(job.step('machine-id --version').stdout, /fake/);
});

test('a download that is not there says so', (t) => {
  const job = new Job(t, { installed: false });
  fs.writeFileSync(job.path('bin/curl'), '#!/bin/bash\nexit 22\n', { mode: 0o755 });
  const install = job.step('install.sh', { ORB_VERSION: '9.9.9', ORB_SHA256: sha256, ORB_DOWNLOAD_URL: '' });
  assert.equal(install.status, 5);
  assert.match(install.stderr, /cannot download https:\/\/github\.com\/your-org\/.*v9\.9\.9.*: is there such a release/);
  assert.deepEqual(fs.readdirSync(job.path('tmp')), []);
});

test('install never runs another SHA-256', (t) => {
  for (const ORB_SHA256 of ['0'.repeat(64), '']) {
    const job = new Job(t, { installed: false });
    const install = job.step('install.sh', { ORB_VERSION: '', ORB_SHA256, ORB_DOWNLOAD_URL: 'https://m.example.com/x' });
    assert.equal(install.status, 2);
    assert.match(install.stderr, new RegExp(`its SHA-256 is ${sha256}, not`));
    assert.match(fs.readFileSync(`${job.path('calls')}.curl`, 'utf8'), /^--url\nhttps:\/\/m\.example\.com\/x$/m);
    assert.deepEqual([job.calls(), fs.readdirSync(job.path('tmp'))], [[], []]);
    assert.equal(fs.readFileSync(job.path('bash_env'), 'utf8'), '');
  }
});

test('login gets certificates for later steps, cleanup takes them away', (t) => {
  const job = new Job(t);
  const values = {
    AUTHORITY: 'https://id.example.com',
    TOKEN: 'circleci-deploy',
    OUTPUT: 'ssh\n  database,service=orders,user=deploy\n\n',
    ROLE: 'deploy\norders',
    TTL: '30m',
    CA_FILE: 'ca.crt',
    CA_PIN: 'sha256:00',
    TIMEOUT: '20s',
  };
  const login = job.step('once.sh', { ...parameters(values), ORB_DESTINATION: 'out' });
  assert.equal(login.status, 0, login.stderr);
  assert.deepEqual(job.calls()[0].argv, [
    'once',
    '--join-method=circleci',
    '--authority=https://id.example.com',
    `--ca-file=${job.path('project/ca.crt')}`,
    '--ca-pin=sha256:00',
    '--token=circleci-deploy',
    '--ttl=30m',
    '--timeout=20s',
    '--output=ssh',
    '--output=database,service=orders,user=deploy',
    '--role=deploy',
    '--role=orders',
    `--destination=${job.path('project/out')}`,
  ]);
  assert.equal(job.step('cat "$MACHINE_ID_DESTINATION/key"').stdout, 'secret');

  const cleanup = job.step('cleanup.sh');
  assert.deepEqual(cleanup, { status: 0, stdout: '', stderr: '' });
  const { argv, env } = job.calls().at(-1);
  assert.deepEqual(argv, ['cleanup']);
  assert.equal(env.MACHINE_ID_AUTHORITY, 'https://id.example.com');
  assert.equal(env.MACHINE_ID_CA_FILE, job.path('project/ca.crt'));
  assert.equal(env.MACHINE_ID_CA_PIN, 'sha256:00');
  assert.ok(!fs.existsSync(job.path('project/out')));
});

test('without parameters the environment decides, and the destination is a new private folder', (t) => {
  const job = new Job(t);
  assert.equal(job.step('once.sh', parameters()).status, 0);
  const { argv } = job.calls()[0];
  assert.equal(argv.length, 3);
  const folder = path.dirname(argv[2].replace('--destination=', ''));
  assert.equal(path.dirname(folder), job.path('tmp'));
  assert.equal(fs.statSync(folder).mode & 0o777, 0o700);
});

test('a refusal keeps its exit code, and cleanup follows it', (t) => {
  const job = new Job(t);
  assert.equal(job.step('once.sh', { ...parameters(), FAKE_ONCE: '4' }).status, 4);
  assert.equal(job.step('cleanup.sh').status, 0);
  assert.deepEqual(job.calls().map(({ argv }) => argv[0]), ['once', 'cleanup']);
  assert.ok(job.calls()[1].env.MACHINE_ID_DESTINATION);
});

test('run wraps a command and keeps its exit status', (t) => {
  const job = new Job(t);
  const command = 'false | true || cat "$MACHINE_ID_DESTINATION/key"; exit 7';
  const run = job.step('once.sh', { ...parameters({ ROLE: 'deploy' }), ORB_COMMAND: command });
  assert.deepEqual([run.status, run.stdout], [7, 'secret']);
  const { argv } = job.calls()[0];
  assert.deepEqual(argv.slice(2), ['--role=deploy', '--', 'bash', '-eo', 'pipefail', '-c', command]);
  assert.equal(fs.readFileSync(job.path('bash_env'), 'utf8'), '');
});

test('hostile parameters stay arguments, also in later steps', (t) => {
  const job = new Job(t);
  const values = {
    AUTHORITY: '$(touch pwned)`touch pwned`\'"; touch pwned\ntouch pwned',
    TOKEN: '--config=/evil',
    ROLE: '-- sh -c "touch pwned"\n* \\n $HOME',
  };
  const ORB_DESTINATION = "a' b; touch pwned\ntouch pwned";
  assert.equal(job.step('once.sh', { ...parameters(values), ORB_DESTINATION }).status, 0);
  const { argv } = job.calls()[0];
  assert.deepEqual(argv.slice(2), [
    `--authority=${values.AUTHORITY}`,
    '--token=--config=/evil',
    '--role=-- sh -c "touch pwned"',
    '--role=* \\n $HOME',
    `--destination=${job.path('project')}/${ORB_DESTINATION}`,
  ]);
  job.step('cleanup.sh');
  assert.equal(job.calls().at(-1).env.MACHINE_ID_AUTHORITY, values.AUTHORITY);
  assert.equal(job.calls().at(-1).env.MACHINE_ID_DESTINATION, `${job.path('project')}/${ORB_DESTINATION}`);
  assert.deepEqual(fs.readdirSync(job.path('project')), []);
});

test('a cleanup that fails only warns', (t) => {
  const cleanup = new Job(t).step('cleanup.sh', { FAKE_CLEANUP: '5' });
  assert.equal(cleanup.status, 0);
  assert.match(cleanup.stderr, /^warning: machine-id cleanup failed with exit code 5/m);
});

test('cleanup without machine-id does nothing', (t) => {
  const job = new Job(t, { installed: false });
  const cleanup = job.step('cleanup.sh', { PATH: job.path('bin') });
  assert.equal(cleanup.status, 0);
  assert.match(cleanup.stdout, /not installed/);
});
