/** How assigned devices are served: `--mode`, checked before anything starts. */
import type { AssignmentSettings } from '../assignment/offer.js';
import { plan } from '../assignment/planner.js';
import { remedyText } from '../assignment/remedies.js';
import {
  type AssignmentRequest,
  DEVICE_NAMES,
  type DeviceKind,
  fullHost,
  HOST_NAMES,
  nativeGuest,
} from '../assignment/request.js';
import { CliError, EXIT } from './context.js';

/**
 * @throws {CliError} for a mode that no guest on such a host can have, with the rule and what would
 * work.
 */
export function checkAssignment({ mode, host, device }: AssignmentSettings): AssignmentSettings {
  const settings = { mode, host, device };
  if (host === undefined) return settings;
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
  if (requests.some((request) => plan(request).ok)) return settings;
  const [request] = requests;
  const refused = plan(request);
  if (refused.ok) return settings;
  const what = `${HOST_NAMES[host]}, ${DEVICE_NAMES[request.device]}`;
  throw new CliError(
    `${what}: no ${mode} (${refused.code}): ${refused.rule}. What would work: ${remedyText(request)}.`,
    EXIT.USAGE,
  );
}
