import { describe, expect, it } from 'vitest';
import { RULES, type RuleCode } from './plan-rules.js';
import { type Choice, type Plan, plan } from './planner.js';
import { remedies } from './remedies.js';
import {
  type AssignmentRequest,
  CONTAINERS,
  DEVICE_KINDS,
  type DeviceKind,
  fullHost,
  GUEST_MODELS,
  HOST_KINDS,
  type HostCapabilities,
  type HostKind,
  MODES,
  type Mode,
  nativeGuest,
} from './request.js';
import { COLUMNS, type Column, planTable } from './table.js';

/**
 * The table as the mail has it (Jean-Philippe Brucker, 2018-09-13), typed off the mail and not made
 * from the planner.
 */
const MAIL = `
                |  no vIOMMU  |  vIOMMU no PASID | vIOMMU with PASID
  --------------+-------------+------------------+--------------------
  VF            |     ok      |  shadow or nest  |  nest
  mdev, SMMUv3  |     ok      |  shadow          |  shadow + PV (?)
  mdev, vt-d3   |     ok      |  nest            |  nest + PV
`;

const MAIL_ROWS = new Map(
  MAIL.split('\n')
    .filter((line) => /^ {2}(VF|mdev)/.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map(([name, ...cells]) => [name as string, cells] as const),
);

/**
 * Of the mail: "Vt-d2 didn't support nested without PASID", and its nesting attribute "was part of
 * the context entry".
 */
const VTD2_ROWS: Readonly<Record<DeviceKind, readonly string[]>> = {
  vf: ['ok', 'shadow', 'nest'],
  mdev: ['ok', 'shadow', 'shadow + PV'],
};

function expectedCell(
  host: HostKind,
  device: DeviceKind,
  column: Column,
): { choices: Choice[]; pv: boolean } {
  const row =
    host === 'vtd2'
      ? VTD2_ROWS[device]
      : MAIL_ROWS.get(device === 'vf' ? 'VF' : host === 'smmuv3' ? 'mdev, SMMUv3' : 'mdev, vt-d3');
  const text = row?.[COLUMNS.indexOf(column)] as string;
  const choices = (['shadow', 'nest'] as const).filter((choice) => text.includes(choice));
  return { choices: text === 'ok' ? ['bypass'] : choices, pv: text.includes('PV') };
}

/** Which rule refuses a forced mode that the table does not have. */
const REFUSED: Readonly<Record<string, RuleCode>> = {
  'smmuv3 vf pasid shadow': 'PASID_TABLE_IS_THE_GUESTS',
  'smmuv3 mdev no-pasid nest': 'ONE_STAGE_2_PER_VF',
  'smmuv3 mdev pasid nest': 'ONE_STAGE_2_PER_VF',
  'vtd2 vf no-pasid nest': 'VTD2_NESTS_ONLY_WITH_PASID',
  'vtd2 vf pasid shadow': 'PASID_TABLE_IS_THE_GUESTS',
  'vtd2 mdev no-pasid nest': 'NESTE_IS_PER_CONTEXT',
  'vtd2 mdev pasid nest': 'NESTE_IS_PER_CONTEXT',
  'vtd3 vf pasid shadow': 'PASID_TABLE_IS_THE_GUESTS',
  'vtd3 mdev no-pasid shadow': 'FIRST_LEVEL_IS_THE_GUESTS',
  'vtd3 mdev pasid shadow': 'FIRST_LEVEL_IS_THE_GUESTS',
};

/**
 * The level that DMA_MAP fills, by choice; for a container in which the cell's choices are all
 * possible.
 */
const FILLS: Readonly<Record<string, string>> = {
  'smmuv3 vf bypass': 'first',
  'smmuv3 vf shadow': 'first',
  'smmuv3 vf nest': 'second',
  'smmuv3 mdev bypass': 'first',
  'smmuv3 mdev shadow': 'first',
  'vtd2 vf bypass': 'second',
  'vtd2 vf shadow': 'second',
  'vtd2 vf nest': 'second',
  'vtd2 mdev bypass': 'first',
  'vtd2 mdev shadow': 'first',
  'vtd3 vf bypass': 'first',
  'vtd3 vf shadow': 'first',
  'vtd3 vf nest': 'second',
  'vtd3 mdev bypass': 'first',
  'vtd3 mdev nest': 'second',
};

function request(host: HostKind, device: DeviceKind, column: Column, mode: Mode): AssignmentRequest {
  return {
    device,
    guest: column === 'none' ? 'none' : nativeGuest(host),
    pasids: column === 'pasid',
    mode,
    host: fullHost(host),
  };
}

const codeOf = (planned: Plan): RuleCode | undefined => (planned.ok ? undefined : planned.code);

describe('the nine cells', () => {
  it('were read off the mail', () => {
    expect([...MAIL_ROWS.keys()]).toEqual(['VF', 'mdev, SMMUv3', 'mdev, vt-d3']);
    for (const cells of MAIL_ROWS.values()) expect(cells).toHaveLength(3);
  });

  for (const host of HOST_KINDS) {
    for (const device of DEVICE_KINDS) {
      for (const column of COLUMNS) {
        const { choices, pv } = expectedCell(host, device, column);

        it(`${host}, ${device}, ${column}: ${choices.join(' or ')}${pv ? ' + PV' : ''}`, () => {
          const planned = plan(request(host, device, column, 'auto'));
          if (!planned.ok) throw new Error(planned.code);
          // Where both are in the table, hardware nests.
          expect(planned.choice).toBe(choices.at(-1));
          expect(planned.pv !== 'none').toBe(pv);
          expect(planned.fills).toBe(FILLS[`${host} ${device} ${planned.choice}`]);
          expect(planned.reason).not.toBe('');
        });

        for (const mode of ['shadow', 'nest'] as const) {
          it(`${host}, ${device}, ${column}: ${mode} ${choices.includes(mode) ? 'forced' : 'refused'}`, () => {
            const planned = plan(request(host, device, column, mode));
            if (choices.includes(mode)) {
              expect(planned).toMatchObject({ ok: true, choice: mode });
              expect(planned.ok && planned.pv !== 'none').toBe(pv);
              expect(planned.ok && planned.fills).toBe(FILLS[`${host} ${device} ${mode}`]);
            } else {
              const code =
                column === 'none' ? 'NO_GUEST_STAGE_1' : REFUSED[`${host} ${device} ${column} ${mode}`];
              expect(code).toBeDefined();
              expect(planned).toEqual({ ok: false, code, rule: RULES[code as RuleCode] });
            }
          });
        }
      }
    }
  }
});

describe('what each choice hands over', () => {
  const of = (host: HostKind, device: DeviceKind, column: Column, mode: Mode = 'auto') => {
    const planned = plan(request(host, device, column, mode));
    if (!planned.ok) throw new Error(planned.code);
    return [planned.binds, planned.pv, planned.announced, planned.pasidBits];
  };

  it('SMMUv3: the CD table as one pointer; shadows need trapped stores', () => {
    expect(of('smmuv3', 'vf', 'none')).toEqual(['none', 'none', 'none', 0]);
    expect(of('smmuv3', 'vf', 'no-pasid')).toEqual(['cd-table', 'none', 'commands', 0]);
    expect(of('smmuv3', 'vf', 'no-pasid', 'shadow')).toEqual(['none', 'none', 'trapped-stores', 0]);
    expect(of('smmuv3', 'vf', 'pasid')).toEqual(['cd-table', 'none', 'commands', 20]);
    expect(of('smmuv3', 'mdev', 'no-pasid')).toEqual(['none', 'none', 'trapped-stores', 0]);
    expect(of('smmuv3', 'mdev', 'pasid')).toEqual(['none', 'registers', 'trapped-stores', 20]);
  });

  it('vt-d3: RID_PASID, then one binding for each PASID entry; everything needs caching mode', () => {
    expect(of('vtd3', 'vf', 'no-pasid')).toEqual(['rid-pasid', 'none', 'caching-mode', 0]);
    expect(of('vtd3', 'vf', 'pasid')).toEqual(['pasid-entries', 'none', 'caching-mode', 20]);
    expect(of('vtd3', 'mdev', 'no-pasid')).toEqual(['mdev-pasid', 'none', 'caching-mode', 0]);
    expect(of('vtd3', 'mdev', 'pasid')).toEqual(['pasid-entries', 'virtual-commands', 'caching-mode', 20]);
  });

  it('says what keeps a shadowed device from nesting', () => {
    const notNested = (planned: Plan): RuleCode | undefined => (planned.ok ? planned.notNested : undefined);
    expect(notNested(plan(request('smmuv3', 'vf', 'no-pasid', 'shadow')))).toBeUndefined();
    expect(notNested(plan(request('smmuv3', 'mdev', 'no-pasid', 'auto')))).toBe('ONE_STAGE_2_PER_VF');
    expect(notNested(plan(request('vtd2', 'vf', 'no-pasid', 'auto')))).toBe('VTD2_NESTS_ONLY_WITH_PASID');
  });
});

describe('guests and hosts that lack something', () => {
  const change = (
    base: AssignmentRequest,
    changes: Partial<AssignmentRequest>,
    host: Partial<HostCapabilities> = {},
  ): AssignmentRequest => ({ ...base, ...changes, host: { ...base.host, ...host } });

  it('shadows guests whose tables the hardware does not walk, and refuses to nest them', () => {
    const legacy = change(request('vtd3', 'vf', 'no-pasid', 'auto'), { guest: 'vtd-legacy' });
    expect(plan(legacy)).toMatchObject({ choice: 'shadow', notNested: 'LEGACY_HAS_NO_FIRST_LEVEL' });
    expect(codeOf(plan({ ...legacy, mode: 'nest' }))).toBe('LEGACY_HAS_NO_FIRST_LEVEL');
    const foreign = change(request('smmuv3', 'vf', 'no-pasid', 'auto'), { guest: 'vtd-scalable' });
    expect(plan(foreign)).toMatchObject({ choice: 'shadow', notNested: 'FORMATS_DIFFER' });
    expect(codeOf(plan({ ...foreign, pasids: true }))).toBe('FORMATS_DIFFER');
    const mdev = change(request('vtd3', 'mdev', 'no-pasid', 'auto'), { guest: 'vtd-legacy' });
    expect(plan(mdev)).toMatchObject({ choice: 'shadow', fills: 'first' });
  });

  it('gives PASIDs only where guest and host have them', () => {
    const vf = request('vtd3', 'vf', 'pasid', 'auto');
    expect(codeOf(plan(change(vf, { guest: 'vtd-legacy' })))).toBe('PASIDS_NEED_SCALABLE_MODE');
    expect(codeOf(plan(change(vf, { guest: 'none' })))).toBe('PASIDS_NEED_VIOMMU');
    expect(codeOf(plan(change(vf, {}, { pasidBits: 0 })))).toBe('PASIDS_NEED_HOST_PASIDS');
    expect(codeOf(plan(change(vf, { device: 'mdev', pasids: false }, { pasidBits: 0 })))).toBe(
      'MDEV_NEEDS_HOST_PASIDS',
    );
    expect(plan(change(vf, {}, { pasidBits: 16 }))).toMatchObject({ pasidBits: 16 });
  });

  it('nests only with both levels, nesting, and a container that fills the second', () => {
    const vf = request('smmuv3', 'vf', 'no-pasid', 'nest');
    for (const lack of [{ nesting: false }, { stage1: false }, { stage2: false }]) {
      expect(codeOf(plan(change(vf, {}, lack)))).toBe('HOST_DOES_NOT_NEST');
      expect(codeOf(plan(change(vf, { pasids: true, mode: 'auto' }, lack)))).toBe('HOST_DOES_NOT_NEST');
    }
    expect(codeOf(plan(change(vf, {}, { container: 'type1' })))).toBe('CONTAINER_FILLS_FIRST_LEVEL');
    expect(plan(change(vf, {}, { container: 'type1-nesting' }))).toMatchObject({ choice: 'nest' });
    expect(plan(change(vf, { mode: 'auto' }, { container: 'type1' }))).toMatchObject({
      choice: 'shadow',
      fills: 'first',
    });
    expect(plan(change(vf, { mode: 'shadow' }, { container: 'type1-nesting' }))).toMatchObject({
      choice: 'shadow',
      fills: 'second',
    });
  });

  it('falls back to shadowing an mdev whose PASID could nest, where the container does not', () => {
    const mdev = request('vtd3', 'mdev', 'no-pasid', 'auto');
    expect(plan(change(mdev, {}, { container: 'type1' }))).toMatchObject({
      choice: 'shadow',
      fills: 'first',
      notNested: 'CONTAINER_FILLS_FIRST_LEVEL',
    });
  });

  it('keeps mdevs that share a second level out of nesting containers', () => {
    for (const host of ['smmuv3', 'vtd2'] as const) {
      for (const column of ['none', 'no-pasid'] as const) {
        const mdev = change(request(host, 'mdev', column, 'auto'), {}, { container: 'type1-nesting' });
        expect(codeOf(plan(mdev))).toBe('NESTING_CONTAINER_FILLS_SECOND_LEVEL');
      }
    }
    const own = change(request('vtd3', 'mdev', 'none', 'auto'), {}, { container: 'type1-nesting' });
    expect(plan(own)).toMatchObject({ choice: 'bypass', fills: 'second' });
  });

  it('shadows several guest PASIDs only where each can have an address space', () => {
    const mdev = request('smmuv3', 'mdev', 'pasid', 'auto');
    expect(codeOf(plan(change(mdev, {}, { container: 'type1' })))).toBe('ONE_SPACE_PER_CONTAINER');
  });

  it('needs a level for the requests', () => {
    const vf = request('vtd2', 'vf', 'none', 'auto');
    expect(codeOf(plan(change(vf, {}, { stage2: false })))).toBe('NO_LEVEL_FOR_THIS_DEVICE');
    expect(plan(change(request('smmuv3', 'vf', 'none', 'auto'), {}, { stage1: false }))).toMatchObject({
      fills: 'second',
    });
    const mdev = change(request('smmuv3', 'mdev', 'none', 'auto'), {}, { stage1: false });
    expect(codeOf(plan(mdev))).toBe('NO_LEVEL_FOR_THIS_DEVICE');
  });
});

/** Every request that can be written down. */
function* everything(): Generator<AssignmentRequest> {
  const yes = [true, false];
  for (const kind of HOST_KINDS)
    for (const container of CONTAINERS)
      for (const stage1 of yes)
        for (const stage2 of yes)
          for (const nesting of yes)
            for (const pasidBits of [0, 20]) {
              const host = { kind, container, stage1, stage2, nesting, pasidBits, pageRequests: true };
              for (const device of DEVICE_KINDS)
                for (const guest of GUEST_MODELS)
                  for (const pasids of yes)
                    for (const mode of MODES) yield { device, guest, pasids, mode, host };
            }
}

describe('every combination', () => {
  it('has a strategy or a rule, uses every rule, and is served by every remedy it offers', () => {
    const used = new Set<RuleCode>();
    let hopeless = 0;
    for (const asked of everything()) {
      const planned = plan(asked);
      if (planned.ok) {
        if (asked.mode !== 'auto') expect(planned.choice).toBe(asked.mode);
        if (planned.choice === 'nest') expect(planned.fills).toBe('second');
        expect(planned.pv !== 'none').toBe(asked.device === 'mdev' && asked.pasids);
        continue;
      }
      used.add(planned.code);
      expect(planned.rule).toBe(RULES[planned.code]);
      const offered = remedies(asked);
      if (offered.length === 0) hopeless++;
      for (const { request: changed, text } of offered) {
        expect(plan(changed).ok, text).toBe(true);
        const { stage1, stage2, nesting, pasidBits, kind } = changed.host;
        expect({ stage1, stage2, nesting, pasidBits, kind }).toEqual({
          stage1: asked.host.stage1,
          stage2: asked.host.stage2,
          nesting: asked.host.nesting,
          pasidBits: asked.host.pasidBits,
          kind: asked.host.kind,
        });
      }
      // Only a host without any usable level leaves nothing to offer, or one where three things are
      // wrong at once.
      if (offered.length === 0 && asked.host.stage1 && asked.host.stage2 && asked.host.nesting) {
        expect(asked.host.pasidBits).toBe(0);
      }
    }
    expect([...used].sort()).toEqual(Object.keys(RULES).sort());
    expect(hopeless).toBeGreaterThan(0);
  });

  it('in mode auto is refused only when both forced modes are', () => {
    for (const asked of everything()) {
      if (asked.mode !== 'auto' || asked.guest === 'none') continue;
      const forced = (['shadow', 'nest'] as const).some((mode) => plan({ ...asked, mode }).ok);
      expect(plan(asked).ok).toBe(forced);
    }
  });
});

describe('the table', () => {
  it('has a row for each device and says what else a cell accepts', () => {
    const rows = planTable({ host: fullHost('vtd3'), guest: 'vtd-scalable', mode: 'auto' });
    expect(rows.map((row) => row.map((cell) => cell.also))).toEqual([
      [undefined, 'shadow', undefined],
      [undefined, undefined, undefined],
    ]);
  });

  it('offers something for each refused cell', () => {
    const [row] = planTable({ host: fullHost('smmuv3'), guest: 'smmuv3', mode: 'nest', devices: ['mdev'] });
    expect(row?.map((cell) => cell.wouldWork)).toEqual([
      undefined,
      'shadow, or the whole VF',
      'shadow, or the whole VF',
    ]);
  });
});
