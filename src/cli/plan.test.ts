import { afterEach, describe, expect, it } from 'vitest';
import { run } from './program.js';
import { fakeServices, type TestContext, testContext } from './testing/fakes.js';

let context: TestContext;

async function viommu(...argv: string[]): Promise<number> {
  context = testContext();
  return await run(context, fakeServices(), argv);
}

afterEach(() => context.cleanUp());

describe('viommu plan', () => {
  it('prints one table for each kind of host, choice and reason in every cell', async () => {
    expect(await viommu('plan')).toBe(0);
    const out = context.out();
    for (const host of ['SMMUv3', 'vt-d2', 'vt-d3']) expect(out).toContain(`Host ${host}: `);
    expect(out.match(/^VF /gm)).toHaveLength(3);
    expect(out.match(/^mdev /gm)).toHaveLength(3);
    expect(out).toContain('nest (or shadow)');
    expect(out).toContain('shadow + PV');
    expect(out).toContain('nest + PV');
    expect(out).not.toContain('refused');
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
    expect(context.err()).toBe('');
  });

  it('prints only the row asked for', async () => {
    expect(await viommu('plan', '--host', 'vtd3', '--device', 'mdev')).toBe(0);
    expect(context.out()).not.toMatch(/^VF /m);
    expect(context.out()).toMatch(/^mdev /m);
  });

  it('fails on a forced mode that is impossible, with the rule and what would work', async () => {
    expect(await viommu('plan', '--host', 'smmuv3', '--device', 'mdev', '--mode', 'nest')).toBe(1);
    const lines = context.err().trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toBe(
      'viommu: SMMUv3, mdev, vIOMMU, no PASID: no nest (ONE_STAGE_2_PER_VF): SMMUv3: the VF has a single set of ' +
        'stage-2 tables, which mdevs of different guests would have to share. What would work: shadow, or the whole VF.',
    );
    expect(context.out()).toContain('refused: ONE_STAGE_2_PER_VF');
  });

  it('prints the same as data', async () => {
    expect(await viommu('plan', '--host', 'vtd2', '--mode', 'nest', '--json')).toBe(1);
    const [table] = JSON.parse(context.out());
    expect(table.host.kind).toBe('vtd2');
    expect(table.cells).toHaveLength(6);
    expect(table.cells[1]).toMatchObject({
      device: 'vf',
      column: 'no-pasid',
      ok: false,
      code: 'VTD2_NESTS_ONLY_WITH_PASID',
    });
    expect(table.cells[2]).toMatchObject({ ok: true, choice: 'nest', binds: 'pasid-entries' });
  });

  it('takes away what the host lacks', async () => {
    expect(await viommu('plan', '--host', 'vtd3', '--without', 'nesting,pasids', '--json')).toBe(0);
    const [table] = JSON.parse(context.out());
    expect(table.host).toMatchObject({ nesting: false, pasidBits: 0, stage1: true });
    expect(table.cells[1]).toMatchObject({ choice: 'shadow', notNested: 'HOST_DOES_NOT_NEST' });
    expect(table.cells[3]).toMatchObject({ code: 'MDEV_NEEDS_HOST_PASIDS' });
  });

  it('refuses words that it does not know', async () => {
    expect(await viommu('plan', '--without', 'luck')).toBe(2);
    expect(context.err()).toContain('page-requests');
  });
});
