/** Interrupt requests and what a model that remaps them answers. VT-d chapter 5. */

/**
 * A write of a doubleword to the interrupt range, as the bridge saw it. The object is reused by the
 * caller.
 */
export interface InterruptRequest {
  /** Source-id: the requester id of the device, or that of the IOxAPIC. */
  rid: number;
  /** Address and data of the message, as the device was programmed with. */
  lo: number;
  hi: number;
  data: number;
  /** What would become of it: no fault is recorded (a route that is set up in advance). */
  look: boolean;
}

/** What becomes of an interrupt request. */
export interface InterruptResult {
  /** {@link TRANSLATE_STATUS}.OK, or FAULT: it is blocked. */
  status: number;
  /**
   * The message to deliver to the processors: address and data. Bits 31:8 of `hi` are bits 31:8 of
   * the destination, whose bits 7:0 are in `lo`: one form for 8-bit and 32-bit APIC ids.
   */
  lo: number;
  hi: number;
  data: number;
  /** The table entry that it comes from, or {@link ANY}: only an invalidation of all drops it. */
  index: number;
  /** Every request of any source passes as it is, until all are invalidated. */
  passAll: boolean;
}

/** A block of 2^16 table entries is every one, and with it what comes from none. */
export const ALL_ENTRIES = 16;

/** Interrupt remapping. */
export interface InterruptView {
  /**
   * Answers one request, and records the architected fault when there is one, unless the request is
   * a look. Fills `result` completely. Where the model's `answersMayBeKept` says so, the answer may
   * be kept until its entry is invalidated.
   */
  remap(request: InterruptRequest, result: InterruptResult): void;
  /**
   * Whether an answer from the model's own cache is compared with memory; a `staleInterrupt` event
   * tells of each entry that differs, once until it is read again. Off at the start.
   */
  check?(on: boolean): void;
}
