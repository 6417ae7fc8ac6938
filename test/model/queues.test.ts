import { describe, expect, it } from 'vitest';
import { movesOf } from './queues.js';
import { ALL_RULES, type Rules, type Scenario, start } from './queues-state.js';
import { search } from './search.js';

const QUIET: Scenario = {
  announced: 'plain',
  ...{ asks: 0, walks: 0, another: false, reset: false, reconnects: false },
};

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'a device that asks': { ...QUIET, asks: 3 },
  'a walk of the peer': { ...QUIET, walks: 3 },
  both: { ...QUIET, asks: 2, walks: 2 },
  'an INVALIDATE of structures before it': { ...QUIET, announced: 'structures', asks: 2, walks: 1 },
  'an INVALIDATE beside it': { ...QUIET, asks: 2, walks: 2, another: true },
  'an INVALIDATE before and one beside it': { ...QUIET, announced: 'structures', asks: 2, another: true },
  'a reset': { ...QUIET, asks: 2, walks: 1, another: true, reset: true },
  'another connection': { ...QUIET, asks: 2, walks: 2, reconnects: true },
};

describe('every interleaving of a completion in the store', () => {
  it.each(Object.entries(SCENARIOS))('is right, and completes in the end, with %s', (_name, scenario) => {
    const { states, ends, wrong } = search(start(scenario), movesOf(ALL_RULES, scenario), ({ completed }) => {
      if (!completed) throw new Error('it never completes');
    });
    expect(wrong).toBeUndefined();
    expect(states).toBeGreaterThan(20);
    expect(ends).toBeGreaterThan(0);
  });

  const NEEDED: readonly (readonly [keyof Rules, keyof typeof SCENARIOS])[] = [
    ['answersHaveGenerations', 'a device that asks'],
    ['walksHaveGenerations', 'a walk of the peer'],
    ['epochs', 'an INVALIDATE of structures before it'],
    ['ringFirst', 'a device that asks'],
    ['nothingOutstanding', 'an INVALIDATE of structures before it'],
    ['inForce', 'an INVALIDATE of structures before it'],
    ['closedFirst', 'an INVALIDATE of structures before it'],
    ['droppedFirst', 'a device that asks'],
    ['copiedFirst', 'a device that asks'],
    ['forgets', 'another connection'],
  ];

  it.each(NEEDED)('goes wrong without %s, with %s', (rule, name) => {
    const scenario = SCENARIOS[name] as Scenario;
    const { wrong } = search(start(scenario), movesOf({ ...ALL_RULES, [rule]: false }, scenario));
    expect(wrong?.what).toBe('an old translation is used after the completion');
    expect(wrong?.steps.length).toBeGreaterThan(3);
  });
});
