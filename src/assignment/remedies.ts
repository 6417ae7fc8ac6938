/**
 * What would work instead of a refused combination: found by planning it, so it is never a wrong
 * promise.
 */
import { plan } from './planner.js';
import {
  type AssignmentRequest,
  CONTAINER_NAMES,
  type Container,
  type DeviceKind,
  GUEST_NAMES,
  type GuestModel,
  type Mode,
  nativeGuest,
} from './request.js';

/** A changed request that has a strategy, and how to say what changed. */
interface Remedy {
  readonly request: AssignmentRequest;
  readonly text: string;
}

type Change = (request: AssignmentRequest) => Remedy | undefined;

const mode =
  (to: Mode): Change =>
  (request) =>
    request.mode === to ? undefined : { request: { ...request, mode: to }, text: MODE_TEXT[to] };

const MODE_TEXT: Readonly<Record<Mode, string>> = {
  auto: 'mode auto',
  shadow: 'shadow',
  nest: 'nest',
};

const guest =
  (choose: (request: AssignmentRequest) => GuestModel): Change =>
  (request) => {
    const to = choose(request);
    return request.guest === to ? undefined : { request: { ...request, guest: to }, text: guestText(to) };
  };

function guestText(to: GuestModel): string {
  return to === 'none' ? 'no vIOMMU' : `${GUEST_NAMES[to]} in the guest`;
}

const container =
  (to: Container): Change =>
  (request) =>
    request.host.container === to
      ? undefined
      : {
          request: { ...request, host: { ...request.host, container: to } },
          text: CONTAINER_NAMES[to],
        };

const withoutPasids: Change = (request) =>
  request.pasids ? { request: { ...request, pasids: false }, text: 'no PASIDs in the guest' } : undefined;

const withPasids: Change = (request) =>
  request.pasids ? undefined : { request: { ...request, pasids: true }, text: 'PASIDs in the guest' };

const device =
  (to: DeviceKind): Change =>
  (request) =>
    request.device === to
      ? undefined
      : {
          request: { ...request, device: to },
          text: to === 'vf' ? 'the whole VF' : 'an mdev (a PASID of the VF)',
        };

/** In the order in which they are offered: nearest to what was asked for first. */
const CHANGES: readonly Change[] = [
  mode('nest'),
  mode('shadow'),
  mode('auto'),
  guest(({ host }) => nativeGuest(host.kind)),
  container('iommufd'),
  container('type1'),
  withoutPasids,
  withPasids,
  device('vf'),
  device('mdev'),
  guest(() => 'none'),
];

/** Most remedies that are offered. */
const MOST = 3;

/**
 * Changes that make a refused request work: one change each if there is any, otherwise pairs. Empty
 * when nothing on this host does.
 */
export function remedies(request: AssignmentRequest): readonly Remedy[] {
  const single = CHANGES.map((change) => change(request)).filter(works);
  if (single.length > 0) return distinct(single).slice(0, MOST);
  const pairs = CHANGES.flatMap((first, index) => {
    const changed = first(request);
    if (changed === undefined) return [];
    return CHANGES.slice(index + 1).map((second) => {
      const both = second(changed.request);
      return both && { request: both.request, text: `${changed.text} with ${both.text}` };
    });
  }).filter(works);
  return distinct(pairs).slice(0, MOST);
}

/** `mode auto` is no news where a named mode is offered. */
function distinct(found: readonly Remedy[]): readonly Remedy[] {
  const named = found.filter(({ text }) => text !== MODE_TEXT.auto);
  return named.length > 0 ? named : found;
}

function works(remedy: Remedy | undefined): remedy is Remedy {
  return remedy !== undefined && plan(remedy.request).ok;
}

/** `nest, or no PASIDs in the guest`; for messages. */
export function remedyText(request: AssignmentRequest): string {
  const texts = remedies(request).map(({ text }) => text);
  return texts.length === 0 ? 'nothing on this host' : texts.join(', or ');
}
