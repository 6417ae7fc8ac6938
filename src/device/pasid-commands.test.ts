import { describe, expect, it } from 'vitest';
import { LocalOutputs } from '../../test/support/local-machine.js';
import { ScriptedSpace } from '../../test/support/scripted-pasids.js';
import { OwnedPasids, PASID_OUTCOME, PasidCommands } from './pasid-commands.js';
import { PASID_ANSWER } from './pasid-space.js';

const { DONE, NONE_LEFT, NOT_OWNED } = PASID_OUTCOME;

function commands(bits = 8) {
  const owned = new OwnedPasids(bits);
  const space = new ScriptedSpace(5);
  const lost: number[] = [];
  const ended: [number, number][] = [];
  const unit = new PasidCommands(
    owned,
    space,
    new LocalOutputs(),
    (pasid) => lost.push(pasid),
    (outcome, pasid) => ended.push([outcome, pasid]),
  );
  return { owned, space, lost, ended, unit };
}

describe('PASIDs that a guest has', () => {
  it.each([1, 5, 8])('are those of %i bits that were added', (bits) => {
    const owned = new OwnedPasids(bits);
    const last = 2 ** bits - 1;
    for (const pasid of [0, last]) owned.add(pasid);
    expect([-1, 0, last, last + 1].map((pasid) => owned.has(pasid))).toEqual([false, true, true, false]);
    expect([owned.delete(last), owned.delete(last), owned.delete(last + 1)]).toEqual([true, false, false]);
    expect([owned.has(0), owned.has(last)]).toEqual([true, false]);
    owned.clear();
    expect(owned.has(0)).toBe(false);
  });
});

describe('a command for PASIDs', () => {
  it('ends at once where the answer is there, or with the answer', () => {
    const { owned, space, ended, unit } = commands();
    unit.allocate();
    expect([ended, owned.has(5), unit.busy]).toEqual([[[DONE, 5]], true, false]);
    space.answer = PASID_ANSWER.LATER;
    unit.allocate();
    expect([ended.length, unit.busy]).toEqual([1, true]);
    unit.answered(6);
    expect([ended.at(-1), owned.has(6), unit.busy]).toEqual([[DONE, 6], true, false]);
    // To no question.
    unit.answered(7);
    expect([ended.length, owned.has(7)]).toEqual([2, false]);
  });

  it('that allocates fails where there is none, and gives back what the unit has no number for', () => {
    const { owned, space, ended, unit } = commands(3);
    space.answer = PASID_ANSWER.REFUSED;
    unit.allocate();
    expect(ended).toEqual([[NONE_LEFT, 0]]);
    space.answer = 8;
    space.asked.length = 0;
    unit.allocate();
    expect([space.asked, ended.at(-1), owned.has(8)]).toEqual([
      ['allocate', 'free 0x8'],
      [NONE_LEFT, 0],
      false,
    ]);
  });

  it('that frees takes the PASID before the answer, and only where it is not refused', () => {
    const { owned, space, lost, ended, unit } = commands();
    unit.allocate();
    space.answer = PASID_ANSWER.REFUSED;
    unit.free(5);
    expect([ended.at(-1), lost, owned.has(5)]).toEqual([[NOT_OWNED, 0], [], true]);
    space.answer = PASID_ANSWER.LATER;
    unit.free(5);
    expect([unit.busy, lost, owned.has(5)]).toEqual([true, [5], false]);
    unit.answered(PASID_ANSWER.DONE);
    expect(ended.at(-1)).toEqual([DONE, 0]);
  });

  it('has no end after a reset', () => {
    const { owned, space, lost, ended, unit } = commands();
    unit.allocate();
    space.answer = PASID_ANSWER.LATER;
    unit.allocate();
    unit.reset();
    unit.answered(6);
    expect([ended.length, owned.has(5), owned.has(6), unit.busy]).toEqual([1, false, false, false]);
    expect([space.asked.at(-1), lost]).toEqual(['release', []]);
  });
});
