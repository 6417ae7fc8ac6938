import type { SessionReport } from '../session/report.js';
import type { SimReport } from '../sim/sim-report.js';
import type { SessionEnd } from './daemon.js';
import type { DemoOutcome } from './demo-guest.js';

const RULE = '─'.repeat(78);

const row = (name: string, value: string): string => `  ${name.padEnd(16)}${value}`;
const count = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ' ');
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

/** What `viommu demo` prints at the end, and why the run is no success (empty when it is one). */
export function guestReport(
  outcome: DemoOutcome,
  session: SessionEnd | undefined,
): { readonly lines: readonly string[]; readonly problems: readonly string[] } {
  const { verdict, end } = outcome;
  const problems = [...verdict.problems];
  const report = session?.report;
  if (report === undefined) problems.push('the daemon has no report of this machine');
  else if (report.counters.faults > 0)
    problems.push(`the daemon recorded ${report.counters.faults} fault(s)`);
  else if (report.bridge.misses === 0) problems.push('no translation was asked of the daemon');
  else if (report.bridge.walks === 0) problems.push('no table was walked inside QEMU');
  if (session !== undefined && !['PEER_CLOSED', 'STOPPED'].includes(session.code)) {
    problems.push(`the connection ended with ${session.code}: ${session.text}`);
  }
  const lines = [
    RULE,
    row('guest', `Linux ${outcome.release}, ${outcome.how}, ${(end.milliseconds / 1000).toFixed(1)} s`),
    ...outcome.driver.map((line, index) => row(index === 0 ? 'its driver' : '', line)),
    ...verdict.disks.map(({ job, bytes, same, md5 }) =>
      row(job, `${mib(bytes)} written and read back, md5 ${md5} ${same ? 'equal' : 'DIFFERENT'}`),
    ),
    ...verdict.transfers.map(({ direction, bytes, same, md5 }) =>
      row(`e1000e ${direction}`, `${mib(bytes)}, md5 ${md5} ${same ? 'equal on both sides' : 'DIFFERENT'}`),
    ),
    row('bytes moved', `${count(verdict.bytesMoved)} by DMA, checked`),
    ...(report === undefined ? [] : daemonRows(report)),
    row('faults', `${Math.max(report?.counters.faults ?? 0, verdict.faults.length)}`),
    RULE,
  ];
  return { lines, problems };
}

function daemonRows(report: SessionReport): string[] {
  const { bridge, counters } = report;
  const all = bridge.hits + bridge.walks + bridge.misses;
  const share = all === 0 ? 0 : (100 * (bridge.hits + bridge.walks)) / all;
  return [
    row(
      'translations',
      `${count(all)}: ${count(bridge.hits + bridge.walks)} answered inside QEMU (${share.toFixed(2)} %)`,
    ),
    row('misses', `${count(bridge.walks)} walked inside QEMU, ${count(bridge.misses)} asked of the daemon`),
    row(
      'invalidations',
      `${count(counters.invalidations)} by the guest in ${count(counters.commands)} ${report.model === 'vtd' ? 'descriptors' : 'commands'}, ` +
        `${count(report.commandsByPeer)} completed inside QEMU; ${count(report.invalidationsSent)} messages to QEMU, ${count(report.invalidationsSuppressed)} not needed`,
    ),
  ];
}

/** What `viommu demo --sim` prints at the end. */
export function simReport(
  report: SimReport,
  session: SessionReport | undefined,
  milliseconds: number,
): readonly string[] {
  return [
    RULE,
    row('machine', `simulated, ${(milliseconds / 1000).toFixed(1)} s`),
    row('bytes moved', `${count(report.bytesMoved)} by DMA, checksums equal`),
    row(
      'translations',
      `${count(report.hits + report.misses)}: ${count(report.hits)} answered by the machine's IOTLB`,
    ),
    row(
      'misses',
      `${count(report.misses)} asked of the daemon, ${count(session?.counters.walks ?? 0)} walks`,
    ),
    row(
      'invalidations',
      `${count(report.descriptors)} ${session?.model === 'smmuv3' ? 'commands' : 'descriptors'}, ${count(report.invalidations)} messages to the machine`,
    ),
    row('interrupts', count(report.interrupts)),
    row(
      'faults',
      `${report.unexpectedFaults} (and ${report.expectedFaults} provoked, each reported as it must be)`,
    ),
    RULE,
  ];
}
