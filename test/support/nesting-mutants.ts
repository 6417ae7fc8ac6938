/**
 * What may be wrong with an invalidation that nesting forwards: as the model says it, or as the
 * host is asked for it.
 */
import { ANY } from '../../src/base/ids.js';
import type { InvalidateScope } from '../../src/device/iommu.js';
import { type HostDone, type HostInvalidations, MapChanges } from '../../src/host/port.js';
import { PARENT_SPACE } from '../../src/nesting/parent.js';
import { GUEST_RID } from './nested-guests.js';
import type { NestedMachine } from './nested-machine.js';

/** The second device that a guest needs for a wrong requester id, which is then one of its own. */
export const OTHER_RID = GUEST_RID + 8;

/** What is wrong with a scope of the model's, or with what goes to the host. */
export const MUTANTS = {
  scopeLost: scopes(() => undefined),
  scopeSpace: scopes((scope) => scope.space !== ANY && { ...scope, space: scope.space + 1 }),
  scopeSub: scopes((scope) => scope.sub !== ANY && { ...scope, sub: scope.sub + 1 }),
  scopeRid: scopes((scope) => ({ ...scope, rid: OTHER_RID })),
  scopeAddress: scopes((scope) => scope.log2Size < 64 && { ...scope, lo: (scope.lo ^ 0x10_0000) >>> 0 }),
  scopeNarrow: scopes((scope) => scope.log2Size > 12 && { ...scope, lo: 0x5000, log2Size: 12 }),
  scopePlain: scopes((scope) => ({ ...scope, structures: false })),
  hostLost: host((_words, list) => void list.clear()),
  hostTag: host((words, _list, size) => {
    // ASID and StreamID of a command are in its second word; of a range it is a PASID, and there is
    // one more.
    if (size === 5) words[1] = words[1] === 6 ? 7 : 6;
    else if (isConfiguration(words)) words[1] = OTHER_RID;
    else words[1] = (words[1] as number) + 0x1_0000;
  }),
  hostAddress: host((words, _list, size) => {
    words[2] = ((words[2] as number) ^ 0x10_0000) >>> 0;
    if (size === 5) words[4] = 1;
  }),
  hostTables: (machine: NestedMachine): void => {
    machine.guest.attachNested = (_device, _pasid, _parent, _table, done) => nothing(machine, done);
  },
} as const;
export type Mutant = keyof typeof MUTANTS;

function scopes(change: (scope: InvalidateScope) => InvalidateScope | undefined | false) {
  return (machine: NestedMachine): void => {
    const { outputs } = machine;
    const tell = outputs.invalidate;
    outputs.invalidate = (scope) => {
      const changed = change(scope);
      if (changed !== undefined) tell(changed === false ? scope : changed);
    };
  };
}

function host(change: (words: Uint32Array, list: HostInvalidations, size: number) => void) {
  return (machine: NestedMachine): void => {
    const { guest } = machine;
    const invalidate = guest.invalidate.bind(guest);
    const size = machine.model.model === 'smmuv3' ? 4 : 5;
    guest.invalidate = (parent, list, done) => {
      for (let at = 0; at < list.count; at++) {
        change(list.words.subarray(at * size, (at + 1) * size), list, size);
      }
      invalidate(parent, list, done);
    };
  };
}

/** CMD_CFGI_CD_ALL. */
function isConfiguration(words: Uint32Array): boolean {
  return ((words[0] as number) & 0xff) === 6;
}

/** The host says that it is done, and is not. */
function nothing(machine: NestedMachine, done: HostDone): void {
  machine.guest.change(PARENT_SPACE, new MapChanges(), done);
}
