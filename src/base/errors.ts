/**
 * Errors that a peer, a user or the daemon causes: one table of number, name, meaning and effect. A
 * guest's mistake is not an error here; it becomes the fault that the architecture names, a value.
 * The numbers travel in `Error.code` and `Status.code` of the wire and are never reused.
 */

/**
 * What an error does. `connection` ends the connection, with an ERROR frame and a line in the log.
 * `request` is the answer to that request and has no other effect. `process` stops a command before
 * it starts.
 */
type Severity = 'connection' | 'request' | 'process';

interface ErrorEntry {
  readonly code: number;
  readonly severity: Severity;
  /** Whether connecting again, unchanged, can help. */
  readonly reconnect: boolean;
  /** For the documentation. What happened in the case at hand is `CodedError.message`. */
  readonly meaning: string;
}

const entry = (code: number, severity: Severity, reconnect: boolean, meaning: string): ErrorEntry => ({
  code,
  severity,
  reconnect,
  meaning,
});

/** Every coded error by name. */
export const ERRORS = {
  // Frames.
  FRAME_TOO_LONG: entry(1, 'connection', false, 'a frame announces a body above the size limit'),
  FRAME_TRUNCATED: entry(2, 'connection', true, 'the peer closed in the middle of a frame'),
  UNKNOWN_TYPE: entry(3, 'connection', false, 'a message type that this version does not know'),
  OUT_OF_ORDER: entry(
    4,
    'connection',
    false,
    'a message that is not allowed at this point, or not on this channel',
  ),
  NOT_NEGOTIATED: entry(5, 'connection', false, 'a message whose feature is not in force'),
  UNEXPECTED_REPLY: entry(6, 'connection', false, 'a reply to no request'),
  BAD_BODY: entry(7, 'connection', false, 'a body that is not the message its type names'),
  MISSING_DESCRIPTOR: entry(8, 'connection', false, 'fewer file descriptors than the message needs'),
  EXTRA_DESCRIPTOR: entry(9, 'connection', false, 'more file descriptors than the message takes'),
  BAD_HEADER: entry(10, 'connection', false, 'reserved header bits, or another header version'),
  PEER_CLOSED: entry(11, 'connection', true, 'the peer closed the connection between two frames'),
  PEER_REFUSED: entry(12, 'connection', false, 'the peer answered a request of the daemon with a failure'),
  PEER_STALLED: entry(13, 'connection', true, 'the peer does not read what it is sent'),
  SOCKET_FAILED: entry(14, 'connection', true, 'a system call on the connection failed'),
  BAD_ARGUMENT: entry(15, 'connection', false, 'a field of a message has a value it cannot have'),
  // Handshake.
  BAD_VERSION: entry(20, 'connection', false, 'no protocol version in common'),
  UNKNOWN_MODEL: entry(21, 'connection', false, 'no IOMMU model of that name'),
  BAD_OPTION: entry(22, 'connection', false, 'a model option that does not exist or has an impossible value'),
  BAD_SHARED_PAGE: entry(23, 'connection', false, 'the shared page file is too small or cannot be mapped'),
  // Memory table; these answer MEM_ADD and MEM_REMOVE.
  BAD_REGION: entry(30, 'request', false, 'a memory region with an impossible address or size'),
  REGION_EXISTS: entry(31, 'request', false, 'the region number is in use'),
  REGION_OVERLAPS: entry(32, 'request', false, 'the region overlaps one that is in the table'),
  REGION_UNKNOWN: entry(33, 'request', false, 'no region has this number'),
  FILE_TOO_SHORT: entry(34, 'request', false, 'the file ends before the region does'),
  FILE_NOT_SEALED: entry(
    35,
    'request',
    false,
    'the file may shrink under the daemon, which was told not to accept that',
  ),
  MAP_FAILED: entry(36, 'request', false, 'the file cannot be mapped'),
  TOO_MANY_REGIONS: entry(37, 'request', false, 'the memory table is full'),
  // Guest memory served by the peer; these answer MEM_READ, MEM_WRITE and MEM_CAS.
  NOT_MEMORY: entry(40, 'request', false, 'the address is not memory, or not writable'),
  // Assigned devices; answers HOST_DEVICE.
  NOT_ASSIGNABLE: entry(
    45,
    'request',
    false,
    'a rule forbids this way of assigning this device to this guest',
  ),
  // The daemon.
  INTERNAL: entry(50, 'connection', true, 'a defect of the daemon; the log has the stack'),
  STOPPED: entry(51, 'connection', true, 'the daemon or this session was told to stop'),
  SESSION_GONE: entry(52, 'request', true, 'the session has ended'),
  // Starting up.
  ADDRESS_IN_USE: entry(
    60,
    'process',
    false,
    'another process answers on this socket, or it is not a socket',
  ),
  BAD_SOCKET_PATH: entry(61, 'process', false, 'a socket path that cannot be used'),
} as const satisfies Readonly<Record<string, ErrorEntry>>;

export type ErrorName = keyof typeof ERRORS;

/** An error of the table, with what happened in the case at hand. */
export class CodedError extends Error {
  readonly code: number;
  readonly reason: ErrorName;
  readonly severity: Severity;

  constructor(reason: ErrorName, detail: string) {
    super(detail);
    this.name = 'CodedError';
    this.reason = reason;
    this.code = ERRORS[reason].code;
    this.severity = ERRORS[reason].severity;
  }
}

const NAME_OF = new Map<number, ErrorName>(
  (Object.keys(ERRORS) as ErrorName[]).map((name) => [ERRORS[name].code, name]),
);

/** The name of a code from the wire; `code N` for one that this version does not know. */
export function errorName(code: number): string {
  return NAME_OF.get(code) ?? `code ${code}`;
}
