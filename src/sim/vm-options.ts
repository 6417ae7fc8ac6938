/** What a simulated virtual machine is made of. */
export interface SimVmOptions {
  readonly name?: string;
  readonly model?: string;
  /** The model's options, e.g. `caching-mode`. */
  readonly options?: Readonly<Record<string, string>>;
  /** Bytes of RAM at address 0. Default 64 MiB; 0 = none yet. */
  readonly ramBytes?: number;
  /** False: RAM is served by messages instead of a shared file. Default true. */
  readonly sharedMemory?: boolean;
  /** Masks of FEATURE. Default: all but PEER_WALKS. */
  readonly features?: number;
  /** Bytes of the shared page file. Default: room for 128 KiB of registers. */
  readonly sharedBytes?: number;
}
