/**
 * What a session needs from its loop. The session itself has no descriptor, clock or thread: frames
 * come in through `Session.input`, and everything else goes out through these.
 */

import type { AssignmentSettings } from '../assignment/offer.js';
import type { Iommu } from '../device/iommu.js';
import type { ModelPorts } from '../device/models.js';
import type { ViommuEvent } from '../events/viommu-events.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { SharedRegion } from '../memory/mapped.js';
import type { Region } from '../memory/regions.js';
import type { Codec } from '../wire/codec.js';

/** Where frames go; a `Channel` is one. Never waits. */
export interface Outlet {
  put<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): void;
}

/** Guest memory whose regions the session adds and removes. */
export interface SessionMemory extends GuestMemory {
  /** Maps a shared region; returns whether its file is sealed against shrinking. */
  addMapped(region: SharedRegion): boolean;
  /** Adds a region that is read and written through the backend channel. */
  addRemote(region: Region): void;
  /** Throws `REGION_UNKNOWN`. */
  remove(region: number): void;
  clear(): void;
}

/** The file that daemon and bridge share, mapped. */
export interface SharedPage {
  /** Control page; index with `CONTROL`. */
  readonly control: Uint32Array;
  /** The model's register space, and the same bytes one by one. */
  readonly registers: Uint32Array;
  readonly registerBytes: Uint8Array;
  /** The ring of commands that the peer has carried out; absent where the file has none. */
  readonly ring?: Uint32Array | undefined;
}

/** The models there are. */
export interface ModelFactory {
  /** Throws `UNKNOWN_MODEL` or `BAD_OPTION`. */
  createModel(name: string, options: Readonly<Record<string, string>>, ports: ModelPorts): Iommu;
  /** Bytes of register space. Throws `UNKNOWN_MODEL`. */
  modelRegisterBytes(name: string): number;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Readonly<Record<string, string | number | boolean>>;

export interface SessionPorts {
  readonly front: Outlet;
  readonly memory: SessionMemory;
  readonly models: ModelFactory;
  /** Takes over the backend socket that came with HELLO. */
  openBackend(fd: number): Outlet;
  /**
   * Maps the shared page file, `bytes` of which the peer promises, the last `ringBytes` of them a
   * ring; the descriptor stays the caller's. Throws `BAD_SHARED_PAGE`.
   */
  mapSharedPage(fd: number, bytes: number, registerBytes: number, ringBytes: number): SharedPage;
  /** Size of a file in bytes. */
  fileBytes(fd: number): number;
  log(level: LogLevel, message: string, fields?: LogFields): void;
  event(event: ViommuEvent): void;
}

/** What the daemon decides for its sessions. */
export interface SessionSettings {
  /** Name of this session, told to the peer. */
  readonly session: string;
  /** Model options that hold where the peer names none. */
  readonly modelDefaults: Readonly<Record<string, string>>;
  /** How assigned devices are served; default: mode `auto`, nothing known before they come. */
  readonly assignment?: AssignmentSettings | undefined;
}
