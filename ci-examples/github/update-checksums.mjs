#!/usr/bin/env node
// For whoever publishes the action with a release: writes checksums.json from the release's executables.
//   node update-checksums.mjs VERSION FOLDER      FOLDER holds machine-id-TARGET for each target

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [version, folder] = process.argv.slice(2);
if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version ?? '') || !folder) {
  console.error('usage: node update-checksums.mjs VERSION FOLDER');
  process.exit(2);
}
const targets = readdirSync(folder).flatMap((name) => /^machine-id-(.+-(?:linux-musl|apple-darwin))$/.exec(name)?.[1] ?? []);
if (targets.length === 0) {
  console.error(`no machine-id-TARGET in ${folder}`);
  process.exit(2);
}
const sum = (target) => createHash('sha256').update(readFileSync(join(folder, `machine-id-${target}`))).digest('hex');
const sha256 = Object.fromEntries(targets.sort().map((target) => [target, sum(target)]));
writeFileSync(new URL('checksums.json', import.meta.url), `${JSON.stringify({ version, sha256 }, null, 2)}\n`);
