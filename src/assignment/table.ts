/** The table that the project is about, for one host: every cell planned. */
import { type Plan, plan } from './planner.js';
import { remedyText } from './remedies.js';
import {
  type AssignmentRequest,
  DEVICE_KINDS,
  type DeviceKind,
  type GuestModel,
  type HostCapabilities,
  type Mode,
} from './request.js';

/** Columns: how the guest uses a vIOMMU. */
export const COLUMNS = ['none', 'no-pasid', 'pasid'] as const;
export type Column = (typeof COLUMNS)[number];

export const COLUMN_NAMES: Readonly<Record<Column, string>> = {
  none: 'no vIOMMU',
  'no-pasid': 'vIOMMU, no PASID',
  pasid: 'vIOMMU with PASID',
};

export interface Cell {
  readonly device: DeviceKind;
  readonly column: Column;
  readonly request: AssignmentRequest;
  readonly plan: Plan;
  /** Another mode that this cell would accept. */
  readonly also: 'shadow' | 'nest' | undefined;
  /** After a refusal: what would work. */
  readonly wouldWork: string | undefined;
}

interface TableQuestion {
  readonly host: HostCapabilities;
  /** The vIOMMU of the second and third column. */
  readonly guest: GuestModel;
  readonly mode: Mode;
  readonly devices?: readonly DeviceKind[];
}

/**
 * The cells of a table, row by row. A forced mode is one of guests with a vIOMMU: the first column
 * is planned without.
 */
export function planTable({
  host,
  guest,
  mode,
  devices = DEVICE_KINDS,
}: TableQuestion): readonly (readonly Cell[])[] {
  return devices.map((device) =>
    COLUMNS.map((column) => {
      const request: AssignmentRequest = {
        device,
        guest: column === 'none' ? 'none' : guest,
        pasids: column === 'pasid',
        mode: column === 'none' ? 'auto' : mode,
        host,
      };
      const planned = plan(request);
      return {
        device,
        column,
        request,
        plan: planned,
        also: alternative(request, planned),
        wouldWork: planned.ok ? undefined : remedyText(request),
      };
    }),
  );
}

function alternative(request: AssignmentRequest, planned: Plan): Cell['also'] {
  if (!planned.ok || planned.choice === 'bypass') return undefined;
  const other = planned.choice === 'nest' ? 'shadow' : 'nest';
  return plan({ ...request, mode: other }).ok ? other : undefined;
}
