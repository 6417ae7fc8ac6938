/**
 * The file that a peer shares: control page, saved state, registers (docs/protocol.md), mapped as
 * long as the session lasts.
 */
import { fstatSync } from 'node:fs';
import { CodedError } from '../base/errors.js';
import { FileMapping, SystemError, sealAgainstShrinking } from '../base/native.js';
import { SHARED } from '../wire/frame.js';
import type { SharedPage } from './ports.js';

export class MappedPage implements SharedPage {
  readonly control: Uint32Array;
  readonly registers: Uint32Array;
  readonly registerBytes: Uint8Array;
  readonly ring: Uint32Array | undefined;
  readonly #file: FileMapping;

  /**
   * @param bytes of the file, registers and ring included; the descriptor stays the caller's
   * @param ringBytes of the ring that ends the file; 0: there is none
   * @param requireSealed refuse a file that may shrink
   * Throws `BAD_SHARED_PAGE`.
   */
  constructor(fd: number, bytes: number, registerBytes: number, ringBytes: number, requireSealed: boolean) {
    if (fstatSync(fd).size < bytes)
      throw new CodedError('BAD_SHARED_PAGE', `the file has fewer than ${bytes} bytes`);
    if (!sealAgainstShrinking(fd) && requireSealed) {
      throw new CodedError('BAD_SHARED_PAGE', 'the file may shrink');
    }
    this.#file = map(fd, bytes);
    const memory = this.#file.view(0, bytes);
    this.control = new Uint32Array(memory, SHARED.CONTROL, (SHARED.SAVED - SHARED.CONTROL) / 4);
    this.registers = new Uint32Array(memory, SHARED.REGISTERS, registerBytes >>> 2);
    this.registerBytes = new Uint8Array(memory, SHARED.REGISTERS, registerBytes);
    this.ring = ringBytes > 0 ? new Uint32Array(memory, bytes - ringBytes, ringBytes >>> 2) : undefined;
  }

  /** Removes the mapping: none of the arrays may be touched afterwards. */
  unmap(): void {
    this.#file.unmap();
  }
}

function map(fd: number, bytes: number): FileMapping {
  try {
    return new FileMapping(fd, 0, bytes, true);
  } catch (error) {
    if (error instanceof SystemError) throw new CodedError('BAD_SHARED_PAGE', error.message);
    throw error;
  }
}
