import { describe, expect, it } from 'vitest';
import { ANY } from '../../src/base/ids.js';
import type { InvalidateScope } from '../../src/device/iommu.js';
import { PLAIN, PLAIN_KIND, PLAIN_WORDS } from '../../src/device/peer-queue.js';
import { type PeerSpoiler, type Spoiler, spoiling, spoilingPeer } from '../support/spoil.js';
import { DriverFuzzer } from './driver.js';
import { type Fuzzer, Trace, Violation } from './fuzzer.js';
import { Rng } from './rng.js';
import { ShadowFuzzer } from './shadow.js';
import { SmmuDriverFuzzer } from './smmu-driver.js';
import { SmmuShadowFuzzer } from './smmu-shadow.js';

/**
 * Whether mistakes are noticed. Every kind of scope that the models announce is left out, or given
 * a wrong tag, and the fuzzers have to find that: by what devices reach (driver), by what hosts
 * have mapped, and by the audit (shadow). docs/testing.md has the table.
 */

/**
 * Kinds of scopes, by what they name. A `space` is a domain-id or VMID, a `sub` a PASID or ASID.
 */
type Kind =
  | 'everything'
  | 'structures of a requester'
  | 'structures of a space'
  | 'structures of a sub'
  | 'space'
  | 'space, addresses'
  | 'sub'
  | 'sub, addresses';

function kindOf({ space, sub, rid, log2Size, structures }: InvalidateScope): Kind {
  if (rid !== ANY) return 'structures of a requester';
  if (space === ANY) return 'everything';
  const what = sub === ANY ? 'space' : 'sub';
  if (structures) return `structures of a ${what}`;
  return log2Size >= 64 ? what : `${what}, addresses`;
}

type Change = 'dropped' | 'space' | 'sub' | 'requester' | 'address' | 'size' | 'structures';

const CHANGES: Readonly<Record<Change, Spoiler>> = {
  dropped: () => undefined,
  space: (scope) => ({ ...scope, space: scope.space ^ 0x55 }),
  sub: (scope) => ({ ...scope, sub: scope.sub ^ 0x55 }),
  requester: (scope) => ({ ...scope, rid: scope.rid ^ 0x55 }),
  address: (scope) => ({ ...scope, lo: (scope.lo ^ 0x4000_0000) >>> 0 }),
  size: (scope) => ({ ...scope, log2Size: 12 }),
  structures: (scope) => ({ ...scope, structures: false }),
};

const FUZZERS = {
  driver: () => new DriverFuzzer(),
  shadow: () => new ShadowFuzzer(),
  'smmu-driver': () => new SmmuDriverFuzzer(),
  'smmu-shadow': () => new SmmuShadowFuzzer(),
} as const;

const MOST_CASES = Number(process.env['VIOMMU_MUTANT_CASES'] ?? 400);
const SEED = 1000;

/** Cases until a fuzzer finds what is spoilt; undefined: it does not. */
function found(fuzzer: Fuzzer, kind: Kind, change: Change): number | undefined {
  const by: Spoiler = (scope) => (kindOf(scope) === kind ? CHANGES[change](scope) : scope);
  return spoiling(by, () => casesUntilFound(fuzzer));
}

function casesUntilFound(fuzzer: Fuzzer): number | undefined {
  for (let n = 0; n < MOST_CASES; n++) {
    try {
      fuzzer.run(new Rng(SEED + n), new Trace());
    } catch (error) {
      if (error instanceof Violation) return n + 1;
      throw error;
    }
  }
  return undefined;
}

/** What each fuzzer has to find. */
const TABLE: Readonly<Record<keyof typeof FUZZERS, readonly (readonly [Kind, ...Change[]])[]>> = {
  driver: [
    ['everything', 'dropped'],
    ['structures of a requester', 'dropped', 'structures'],
    ['structures of a space', 'dropped'],
    ['structures of a sub', 'dropped', 'structures'],
    ['space', 'dropped', 'space'],
    ['space, addresses', 'dropped', 'space', 'address', 'size'],
    ['sub', 'dropped', 'space', 'sub'],
    ['sub, addresses', 'dropped', 'space', 'sub', 'address', 'size'],
  ],
  shadow: [
    ['everything', 'dropped'],
    ['structures of a requester', 'dropped', 'requester'],
    ['structures of a space', 'dropped', 'space'],
    ['structures of a sub', 'dropped', 'space', 'sub'],
    ['space', 'dropped', 'space'],
    ['space, addresses', 'dropped', 'space', 'address', 'size'],
    ['sub', 'dropped', 'space', 'sub'],
    ['sub, addresses', 'dropped', 'space', 'address', 'size'],
  ],
  'smmu-driver': [
    ['everything', 'dropped'],
    ['structures of a requester', 'dropped'],
    ['space', 'dropped', 'space'],
    ['space, addresses', 'dropped', 'space', 'address', 'size'],
    ['sub', 'dropped', 'space', 'sub'],
    ['sub, addresses', 'dropped', 'space', 'sub', 'address', 'size'],
  ],
  'smmu-shadow': [
    ['everything', 'dropped'],
    ['structures of a requester', 'dropped', 'requester'],
  ],
};

for (const [name, kinds] of Object.entries(TABLE)) {
  describe(`${name} finds an announcement that is spoilt`, () => {
    for (const [kind, ...changes] of kinds) {
      for (const change of changes) {
        it(`${kind}: ${change === 'dropped' ? 'left out' : `another ${change}`}`, () => {
          expect(found(FUZZERS[name as keyof typeof FUZZERS](), kind, change)).toBeDefined();
        });
      }
    }
  });
}

/**
 * A peer that carries out one kind of command, and does nothing: by the first word of its entries.
 */
function without(kind: number, mask: number): PeerSpoiler {
  return {
    describes: (commands) => {
      for (let at = 0; at < commands.length; at += PLAIN_WORDS) {
        const described = (commands[at + PLAIN.VALUE] as number) & mask;
        if (described === kind) commands[at + PLAIN.KIND] = PLAIN_KIND.NOTHING;
      }
    },
  };
}

/** Type and granularity of a descriptor; opcode of a command. */
const DESCRIPTOR_KIND = 0x3f;
const OPCODE = 0xff;

const LATE: readonly (readonly [string, PeerSpoiler])[] = [
  ['what was asked for before is kept', { forgetsGeneration: true }],
  ['the copies are taken after an answer', { takesLate: true }],
];

/** Of a peer that carries out commands itself. */
const PEERS: Readonly<Record<'driver' | 'smmu-driver', readonly (readonly [string, PeerSpoiler])[]>> = {
  driver: [
    ['iotlb_inv_dsc, pages', without(0x32, DESCRIPTOR_KIND)],
    ['iotlb_inv_dsc, a domain', without(0x22, DESCRIPTOR_KIND)],
    ['p_iotlb_inv_dsc, pages', without(0x36, DESCRIPTOR_KIND)],
    ['p_iotlb_inv_dsc, a PASID', without(0x26, DESCRIPTOR_KIND)],
    ...LATE,
  ],
  'smmu-driver': [
    ['CMD_TLBI_NH_VA', without(0x12, OPCODE)],
    ['CMD_TLBI_NH_VAA', without(0x13, OPCODE)],
    ['CMD_TLBI_NH_ASID', without(0x11, OPCODE)],
    ['CMD_TLBI_NH_ALL', without(0x10, OPCODE)],
    ['CMD_TLBI_S2_IPA', without(0x2a, OPCODE)],
    ['CMD_TLBI_S12_VMALL', without(0x28, OPCODE)],
    ...LATE,
  ],
};

for (const [name, mutants] of Object.entries(PEERS)) {
  describe(`${name} finds a peer that carries out commands wrongly`, () => {
    for (const [what, by] of mutants) {
      it(what, () => {
        const fuzzer = name === 'driver' ? new DriverFuzzer(true) : new SmmuDriverFuzzer(true);
        expect(spoilingPeer(by, () => casesUntilFound(fuzzer))).toBeDefined();
      });
    }
  });
}
