/** How assigned devices are served: `--mode`, and what it can be checked against before anything starts. */
import { plan } from '../assignment/plan.js';
import { remedyText } from '../assignment/remedies.js';
import {
  type AssignmentRequest,
  DEVICE_NAMES,
  type DeviceKind,
  fullHost,
  HOST_NAMES,
  type HostKind,
  type Mode,
  nativeGuest,
} from '../assignment/request.js';
import { CliError, EXIT } from './context.js';

export interface AssignmentOptions {
  readonly mode: Mode;
  /** Kind of the host's IOMMU, and of what is assigned; only to be told early of what cannot be. */
  readonly host?: HostKind;
  readonly device?: DeviceKind;
}

/** @throws {CliError} for a mode that no guest on such a host can have: the rule, and what would work. */
export function checkAssignment({ mode, host, device }: AssignmentOptions): Mode {
  if (host === undefined) return mode;
  const devices: readonly DeviceKind[] = device === undefined ? ['vf', 'mdev'] : [device];
  const requests = devices.flatMap((kind) =>
    [false, true].map(
      (pasids): AssignmentRequest => ({
        device: kind,
        guest: nativeGuest(host),
        pasids,
        mode,
        host: fullHost(host),
      }),
    ),
  );
  if (requests.some((request) => plan(request).ok)) return mode;
  const [request] = requests;
  const refused = plan(request);
  if (refused.ok) return mode;
  const what = `${HOST_NAMES[host]}, ${DEVICE_NAMES[request.device]}`;
  throw new CliError(
    `${what}: no ${mode} (${refused.code}): ${refused.rule}. What would work: ${remedyText(request)}.`,
    EXIT.USAGE,
  );
}
