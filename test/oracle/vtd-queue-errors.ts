/** Descriptors that a queue must refuse, and what software does about it. VT-d §6.5.2.11 */
import type { Rng } from '../fuzz/rng.js';
import { store } from './operations.js';
import type { Script } from './script.js';
import { REG, reg } from './vtd-machine.js';
import type { Commands, Descriptor } from './vtd-queue.js';

const GOOD: Descriptor = [2n | (1n << 4n)];

/** Breaks the queue and repairs it. @returns what was wrong */
export function breakQueue(script: Script, rng: Rng, commands: Commands): string {
  const wide = commands.descriptorBytes === 32;
  const status = BigInt(script.allocate());
  const bit = (low: number, high: number): bigint => 1n << BigInt(low + rng.below(high - low + 1));
  const context = 1n | (1n << 4n);
  const iotlb = 2n | (1n << 4n);
  const wait = 5n | 0x20n;
  const wrongs: readonly (readonly [string, Descriptor])[] = [
    ['type 0', [0n]],
    ['unknown type', [BigInt(0xb + rng.below(5))]],
    ['unknown type high', [iotlb | (BigInt(1 + rng.below(7)) << 9n)]],
    ['context cache, granularity 0', [1n]],
    ['context cache, reserved', [context | bit(6, 8)]],
    ['context cache, reserved', [context | bit(50, 63)]],
    ['context cache, reserved', [context, bit(0, 63)]],
    ['IOTLB, granularity 0', [2n]],
    ['IOTLB, reserved', [iotlb | bit(12, 15)]],
    ['IOTLB, reserved', [iotlb | bit(32, 63)]],
    ['IOTLB, reserved', [iotlb, bit(7, 11)]],
    ['IOTLB, mask too large', [2n | (3n << 4n), BigInt(19 + rng.below(45))]],
    ['wait, reserved', [wait | bit(7, 8), status]],
    ['wait, reserved', [wait | bit(12, 31), status]],
    ['wait, reserved', [wait, status | bit(0, 1)]],
    ['wait for nothing', [5n]],
    ['PASID IOTLB', [6n | (2n << 4n)]],
    ['PASID IOTLB, granularity', [6n | (BigInt(rng.below(2)) << 4n)]],
    ['PASID IOTLB, reserved', [6n | (2n << 4n) | bit(52, 63)]],
    ['PASID IOTLB, reserved', [6n | (3n << 4n), bit(7, 11)]],
    ['PASID cache', [7n | (3n << 4n)]],
    ['PASID cache, granularity', [7n | (2n << 4n)]],
    ['PASID cache, reserved', [7n | (3n << 4n) | bit(52, 63)]],
    ['Device-TLB', [3n]],
    ['interrupt entry cache', [4n]],
    ['interrupt entry cache, reserved', [4n | bit(5, 8)]],
    ['upper half', [iotlb, 0n, bit(0, 63), 0n]],
  ];
  if (rng.chance(0.1)) {
    // Only a 128-bit queue of one page has offsets beyond it that the register can hold, and bit 4
    // in its tail.
    const tail = wide && rng.chance(0.5) ? 0x10 : 0x1000 + 32 * rng.below(100);
    commands.put([GOOD]);
    commands.kick('tail out of place', tail);
    commands.recover();
    return 'tail out of place';
  }
  const [name, descriptor] = rng.pick(wide ? wrongs : wrongs.slice(0, -1));
  commands.submit(`wrong descriptor: ${name}`, [GOOD, descriptor]);
  commands.replaceLast(rng.chance(0.5) ? GOOD : [wait | (BigInt(rng.u32()) << 32n), status]);
  commands.recover();
  return name;
}

/** What a guest may do and the stock model does not survive. @returns what it was */
export function endQemu(script: Script, rng: Rng, commands: Commands): string {
  if (commands.queued && rng.chance(0.5)) {
    commands.submit('wait, status and interrupt', [[5n | 0x30n, BigInt(script.allocate())]]);
    return 'wait for both';
  }
  const name = rng.pick(['FECTL', 'IECTL', 'FSTS', 'ICS'] as const);
  script.do(`${name}, a quadword`, [store(reg(REG[name]), 8, 0n)]);
  return `${name} by a quadword`;
}
