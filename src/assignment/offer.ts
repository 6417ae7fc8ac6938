/**
 * What a guest is offered, so that it fits what will be assigned to it: options of its IOMMU's
 * model that follow from the plan. Pure.
 */
import { type Plan, plan, type Strategy } from './planner.js';
import {
  type AssignmentRequest,
  DEVICE_KINDS,
  type DeviceKind,
  fullHost,
  type GuestModel,
  type HostKind,
  type Mode,
} from './request.js';

/**
 * How assigned devices are served, and what they will be as far as that was said before there are
 * any.
 */
export interface AssignmentSettings {
  readonly mode: Mode;
  /** Kind of the host's IOMMU. */
  readonly host?: HostKind | undefined;
  readonly device?: DeviceKind | undefined;
}

type Options = Readonly<Record<string, string>>;

/** Caching mode announces what comes to second-stage tables only. */
const SHADOWED_VTD: Options = { 'first-stage': 'off' };

const ON: readonly (string | undefined)[] = ['on', 'true', '1'];
const OFF: readonly (string | undefined)[] = ['off', 'false', '0'];

/** The vIOMMU that a session's guest sees, and whether it is offered PASIDs. */
export function guestOf(
  model: string,
  options: Options,
): { readonly guest: GuestModel; readonly pasids: boolean } {
  if (model === 'smmuv3') return { guest: 'smmuv3', pasids: options['ssid-bits'] !== '0' };
  if (OFF.includes(options['scalable-mode'])) return { guest: 'vtd-legacy', pasids: false };
  return { guest: 'vtd-scalable', pasids: options['pasid-bits'] !== '0' };
}

/** A guest that is offered PASIDs may do without them: a strategy with them, else one without. */
export function planOffer(request: AssignmentRequest): Plan {
  const planned = plan(request);
  return planned.ok || !request.pasids ? planned : plan({ ...request, pasids: false });
}

/**
 * Options of a model for a guest of such a host: what announces new mappings, PASIDs as wide as the
 * plan allows and where they come from, page requests where they reach the guest and it has ATS.
 * `given` are those that were chosen for the VM; they are left out, and what they exclude too.
 * Nothing when the host is not known, or no plan has a place for such a guest.
 */
export function offeredOptions(
  model: string,
  given: Options,
  { mode, host, device }: AssignmentSettings,
): Options {
  const { guest, pasids } = guestOf(model, given);
  if (host === undefined) {
    // Whatever the host is.
    return mode === 'shadow' && guest === 'vtd-scalable' && !('first-stage' in given) ? SHADOWED_VTD : {};
  }
  const strategies = (device === undefined ? DEVICE_KINDS : [device])
    .map((kind) => planOffer({ device: kind, guest, pasids, mode, host: fullHost(host) }))
    .filter((planned): planned is Strategy => planned.ok);
  if (strategies.length === 0) return {};
  const offered = guest === 'smmuv3' ? smmuOptions(given, strategies) : vtdOptions(guest, given, strategies);
  return Object.fromEntries(Object.entries(offered).filter(([name]) => !(name in given)));
}

/**
 * Options that a strategy needs and a guest lacks, as one would write them. None: it can make use
 * of its device.
 */
export function lackingOptions(options: Options, { announced, pv }: Strategy): string[] {
  const needed = [
    ...(announced === 'caching-mode' ? ['caching-mode'] : []),
    ...(pv === 'none' ? [] : ['virtual-commands']),
  ];
  return needed.filter((name) => !ON.includes(options[name])).map((name) => `${name}=on`);
}

function smmuOptions(given: Options, strategies: readonly Strategy[]): Options {
  const pageRequests = strategies.some((strategy) => strategy.pageRequests);
  const registers = strategies.some(({ pv }) => pv === 'registers') && given['stages'] !== '2';
  // Page requests need ATS, which is never offered: there are guests that lose its invalidations
  // (docs/findings.md).
  return {
    'ssid-bits': String(widest(strategies)),
    'virtual-commands': onOff(registers),
    pri: onOff(pageRequests && ON.includes(given['ats'])),
  };
}

function vtdOptions(guest: GuestModel, given: Options, strategies: readonly Strategy[]): Options {
  const caching = 'caching-mode' in given ? !OFF.includes(given['caching-mode']) : true;
  if (guest === 'vtd-legacy') return { 'caching-mode': 'on' };
  const pageRequests =
    strategies.some((strategy) => strategy.pageRequests) && !OFF.includes(given['device-tlb']);
  const commands = strategies.some(({ pv }) => pv === 'virtual-commands');
  return {
    'caching-mode': 'on',
    ...(strategies.every(({ choice }) => choice === 'shadow') ? SHADOWED_VTD : {}),
    'pasid-bits': String(widest(strategies)),
    'virtual-commands': onOff(commands && caching),
    ...(pageRequests ? { 'device-tlb': 'on', 'page-requests': 'on' } : {}),
  };
}

function widest(strategies: readonly Strategy[]): number {
  return Math.max(...strategies.map(({ pasidBits }) => pasidBits));
}

function onOff(value: boolean): string {
  return value ? 'on' : 'off';
}
