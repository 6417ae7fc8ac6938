import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FEATURE_BIT, RESULT, STATUS } from '../bridge/testdev-driver.js';
import { Daemon } from '../support/daemon.js';
import { Guest, type GuestOptions, prepared } from './support.js';

/**
 * PASIDs in real kernels: our module (test/guests/module) gives PASIDs of viommu-testdev address
 * spaces, and programs in the guest check what the device reaches.
 */

const TIMEOUT_MS = 320_000;
const IOVA = 0x4000_0000;
/** The domain program's. */
const PASID = 5;

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});

afterAll(async () => {
  await daemon.dispose();
});

function options(name: string, given: Partial<GuestOptions>): GuestOptions {
  return {
    series: '6.12',
    name,
    socket: daemon.socket,
    choice: {},
    append: [],
    jobs: [],
    module: true,
    machine: { network: false },
    ...given,
  };
}

/** What a program of the module says: its checks by name, everything else in one. */
class Report {
  readonly said: Readonly<Record<string, string>>;
  readonly checks = new Map<string, Readonly<Record<string, string>>>();

  constructor(guest: Guest, job: string) {
    const lines = guest.run.of(job).map(({ values }) => values);
    for (const values of lines) if (values['check'] !== undefined) this.checks.set(values['check'], values);
    this.said = Object.assign({}, ...lines.filter((values) => values['check'] === undefined));
    expect(this.said['reason']).toBeUndefined();
  }

  /** A transfer that went well, with what else it says. */
  expectDone(check: string, values: Readonly<Record<string, string>> = {}): void {
    expect(this.checks.get(check)).toMatchObject({
      device_status: String(STATUS.DONE),
      result: '0x0',
      ...values,
    });
  }

  /** A transfer that was refused at its start; `result` as docs/testdev.md numbers it. */
  expectFault(check: string, result: number): void {
    const values = this.checks.get(check);
    expect(values).toMatchObject({
      check,
      device_status: String(STATUS.FAULT),
      result: `0x${result.toString(16)}`,
      bytes: '0',
    });
    expect(values?.['fault']).toBe(values?.['address']);
  }
}

const { REFUSED, NOT_MAPPED, PAGE_REFUSED } = RESULT;

/** What the domain program does on every kernel. */
function expectDomain(report: Report): void {
  expect(report.said).toMatchObject({
    attach: 'done',
    pasid: String(PASID),
    unmap: 'done',
    atc_entries: '0',
  });
  report.expectDone('plain', { written: '1', read: '1' });
  for (const check of ['beside', 'other-pasid', 'no-pasid', 'unmapped', 'detached']) {
    report.expectFault(check, REFUSED);
  }
}

describe('a PASID with a domain of its own', () => {
  it(
    'arm64, device tree: a SubstreamID of the SMMUv3, with ATS; the driver refuses page requests and stalls',
    async () => {
      const jobs = ['domain', 'sva'];
      const choice = { properties: { ats: 'on' } };
      const guest = Guest.boot(
        options('substreams', { arch: 'arm64', jobs, choice, parameters: { domain: 'pages' } }),
      );
      try {
        await guest.done();
        const report = new Report(guest, 'domain');
        expectDomain(report);
        expect(Number(report.said['enabled']) & FEATURE_BIT.ATS).not.toBe(0);
        report.expectDone('ahead', { written: '1', read: '1' });
        report.expectFault('unmapped-ahead', REFUSED | NOT_MAPPED);
        // It answers page requests with "deny", which the device hears as a Response Failure.
        report.expectFault('page-request', REFUSED | PAGE_REFUSED);
        expect(report.said).toMatchObject({ page_responses: '1', page_code: '15' });
        const kernel = guest.run.textOf('domain').join('\n');
        expect(kernel).toContain('unexpected PRI request received');
        expect(kernel).toMatch(/unprivileged R access at iova 0x0*40010000/);

        const faults = guest.kernelFaults().map(({ text, pasid, address }) => [text, pasid, Number(address)]);
        expect(faults).toContainEqual(['F_TRANSLATION', PASID, IOVA + 0x1_0000]);
        expect(faults).toContainEqual(['C_BAD_CD', PASID + 1, 0]);
        expect(faults).toContainEqual(['F_TRANSLATION', undefined, IOVA]);
        expect(faults).toContainEqual(['F_TRANSLATION', PASID, IOVA]);
        expect(faults).toContainEqual(['C_BAD_CD', PASID, 0]);
        expect(faults).toHaveLength(5);

        // No shared addresses on this kernel, for the reason that its configuration names.
        expect(new Report(guest, 'sva').said).toMatchObject({ bind: 'failed', step: '1' });
        const config = join(dirname(prepared('arm64').kernels['6.12'].image), 'config');
        expect(readFileSync(config, 'utf8')).toContain('# CONFIG_ARM_SMMU_V3_SVA is not set');
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});

describe('paravirtual PASIDs', () => {
  // The same driver finds the SMMU by either.
  it.each([
    ['device tree', false],
    ['ACPI', true],
  ])(
    'arm64, %s: a driver has its SubstreamIDs from the SMMUv3; others are C_BAD_SUBSTREAMID',
    async (_, acpi) => {
      const choice = { properties: { 'virtual-commands': 'on', 'ssid-bits': '3' } };
      const name = acpi ? 'allocated-acpi' : 'allocated';
      const guest = Guest.boot(options(name, { arch: 'arm64', acpi, jobs: ['substreams'], choice }));
      try {
        await guest.done();
        const report = new Report(guest, 'substreams');
        expect(guest.run.textOf('substreams').join('\n')).toMatch(
          /SubstreamIDs of the SMMU at 0x0*9050000, version 1/,
        );
        expect(report.said).toMatchObject({ allocate: '0', first: '1', second: '2', foreign: '3' });
        report.expectDone('own', { written: '1', read: '1' });
        report.expectDone('second', { written: '1', read: '1' });
        report.expectFault('freed', REFUSED);
        report.expectFault('foreign', REFUSED);
        // EPERM, and ENOSPC with all seven.
        expect(report.said).toMatchObject({
          free: '0',
          free_again: '1',
          free_foreign: '1',
          free_second: '0',
        });
        expect(report.said).toMatchObject({ allocated: '7', error: '28', freed: '7' });
        expect(report.said).toMatchObject({ one_freed: '0', allocated_again: '0', same: '1' });

        const faults = guest.kernelFaults().map(({ text, pasid }) => [text, pasid]);
        expect(faults).toEqual([
          ['C_BAD_SUBSTREAMID', 1],
          ['C_BAD_SUBSTREAMID', 3],
        ]);
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});

describe('amd64, scalable mode', () => {
  it(
    'a process shares its addresses: pages come by page requests, go by invalidations, and end with the binding',
    async () => {
      const jobs = ['sva', 'domain'];
      const choice = { scalableMode: true, properties: { 'device-iotlb': 'on', 'page-requests': 'on' } };
      const append = ['intel_iommu=on,sm_on'];
      const guest = Guest.boot(options('sva', { jobs, choice, append }));
      try {
        await guest.done();
        const report = new Report(guest, 'sva');
        const pasid = Number(report.said['pasid']);
        expect(pasid).toBeGreaterThan(0);
        expect(report.said).toMatchObject({ bind: 'done', enabled: '0xf', unbind: 'done', atc_entries: '0' });
        report.expectDone('write-untouched', { same: '1', page_requests: '16' });
        report.expectDone('read-file', { same: '1' });
        report.expectDone('read-protected');
        report.expectDone('write-mapped-again', { same: '1' });
        report.expectDone('read-plain');
        // Page requests for what the process may not do, or has not.
        for (const check of ['write-read-only', 'write-protected', 'read-unmapped', 'other-pasid-ahead']) {
          report.expectFault(check, REFUSED | PAGE_REFUSED);
        }
        expect(Number(report.checks.get('read-unmapped')?.['invalidations'])).toBeGreaterThan(0);
        for (const check of ['read-plain-unmapped', 'other-pasid', 'unbound-plain']) {
          report.expectFault(check, REFUSED);
        }
        report.expectFault('unbound-ahead', REFUSED | NOT_MAPPED);
        expect(report.checks.get('unbound')).toMatchObject({ same: '1' });

        const faults = guest.kernelFaults().map(({ reason, pasid: whose }) => [reason, whose]);
        // SFS.2, SPT.2: not present in the process's tables, in the PASID table. The driver prints
        // no more than ten lines at once, and counts three for each fault.
        expect(faults).toContainEqual([0x71, pasid]);
        expect(faults).toContainEqual([0x59, pasid + 1]);

        const domain = new Report(guest, 'domain');
        expectDomain(domain);
        domain.expectDone('ahead', { written: '1', read: '1' });
        domain.expectFault('unmapped-ahead', REFUSED | NOT_MAPPED);
      } finally {
        await guest.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
