/**
 * The few calls of the C library that Node does not offer: mapping files, passing descriptors over
 * sockets, waiting on several descriptors in a worker. They go through koffi, so nothing is
 * compiled. Linux, 64-bit only; the numbers below are the same on x86-64 and AArch64.
 *
 * Pointers are plain numbers here (user addresses stay below 2^47). Every descriptor that is made
 * is close-on-exec. Errors are `SystemError`s, except where would-block is an ordinary answer.
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

const c = {
  close: libc.func('int close(int fd)'),
  fcntl: libc.func('int fcntl(int fd, int cmd, int arg)'),
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  socketpair: libc.func('int socketpair(int domain, int type, int protocol, void *fds)'),
  connect: libc.func('int connect(int fd, void *address, uint32_t length)'),
  bind: libc.func('int bind(int fd, void *address, uint32_t length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  recvmsg: libc.func('int64_t recvmsg(int fd, uint64_t header, int flags)'),
  sendmsg: libc.func('int64_t sendmsg(int fd, uint64_t header, int flags)'),
  send: libc.func('int64_t send(int fd, uint64_t data, uint64_t length, int flags)'),
  poll: libc.func('int poll(uint64_t fds, uint64_t count, int timeout)'),
  getCpu: libc.func('int sched_getcpu()'),
  getAffinity: libc.func('int sched_getaffinity(int pid, uint64_t bytes, void *mask)'),
  setAffinity: libc.func('int sched_setaffinity(int pid, uint64_t bytes, void *mask)'),
  read: libc.func('int64_t read(int fd, void *data, uint64_t length)'),
  write: libc.func('int64_t write(int fd, void *data, uint64_t length)'),
  eventfd: libc.func('int eventfd(uint32_t value, int flags)'),
  memfdCreate: libc.func('int memfd_create(const char *name, uint32_t flags)'),
  ftruncate: libc.func('int ftruncate(int fd, int64_t length)'),
  mmap: libc.func(
    'int64_t mmap(uint64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  ),
  munmap: libc.func('int munmap(uint64_t address, uint64_t length)'),
  pageBytes: libc.func('int getpagesize()'),
  fstatfs: libc.func('int fstatfs(int fd, void *data)'),
  strerror: libc.func('const char *strerror(int number)'),
};

/** Numbers of <errno.h> that callers distinguish. */
export const ERRNO = {
  EINTR: 4,
  EAGAIN: 11,
  EPIPE: 32,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ECONNREFUSED: 111,
} as const;

export const MSG = {
  PEEK: 2,
  CTRUNC: 8,
  DONTWAIT: 0x40,
  NOSIGNAL: 0x4000,
  CMSG_CLOEXEC: 0x4000_0000,
} as const;

export const POLL = { IN: 1, OUT: 4, ERR: 8, HUP: 16, NVAL: 32 } as const;

export const SEAL = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x8_0000;
const F_DUPFD_CLOEXEC = 1030;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const MFD_HUGE_SHIFT = 26;
/**
 * More words than `struct statfs` has. `f_type` is the first 64 bits, `f_bsize` the next. statfs(2)
 */
const STATFS_WORDS = 64;
const HUGETLBFS_MAGIC = 0x9584_58f6;
const EFD_CLOEXEC_NONBLOCK = 0x8_0800;
const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE_ANONYMOUS = 0x22;
/** Bytes of `sun_path`, the terminating zero included. unix(7) */
const SOCKET_PATH_BYTES = 108;

/** A failed call: its name, `errno` and the C library's text for it. */
export class SystemError extends Error {
  constructor(
    readonly call: string,
    readonly errno: number,
  ) {
    super(`${call}: ${c.strerror(errno)}`);
    this.name = 'SystemError';
  }
}

/** errno of the call that just failed. Read it at once: the next call may change it. */
export function errno(): number {
  return koffi.errno();
}

function checked(call: string, result: number): number {
  if (result < 0) throw new SystemError(call, koffi.errno());
  return result;
}

/** Closes a descriptor; one that is already gone is not an error. */
export function closeFd(fd: number): void {
  if (fd >= 0) c.close(fd);
}

export function duplicate(fd: number): number {
  return checked('fcntl(F_DUPFD_CLOEXEC)', c.fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/** A connected pair of stream sockets. */
export function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  checked('socketpair', c.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return [fds[0] as number, fds[1] as number];
}

/** `struct sockaddr_un`, or undefined when the path does not fit. */
function socketAddress(path: string): Uint8Array | undefined {
  const name = Buffer.from(path);
  if (name.length === 0 || name.length >= SOCKET_PATH_BYTES || name.includes(0)) return undefined;
  const address = new Uint8Array(2 + name.length + 1);
  address[0] = AF_UNIX;
  address.set(name, 2);
  return address;
}

function withSocket(call: string, path: string, use: (fd: number, address: Uint8Array) => number): number {
  const address = socketAddress(path);
  if (address === undefined) throw new SystemError(call, 36); // ENAMETOOLONG
  const fd = checked('socket', c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (use(fd, address) < 0) {
    const error = new SystemError(call, koffi.errno());
    c.close(fd);
    throw error;
  }
  return fd;
}

/** Connects to a listening stream socket. */
export function connectUnix(path: string): number {
  return withSocket('connect', path, (fd, address) => c.connect(fd, address, address.length));
}

/**
 * Makes a listening stream socket that only its owner can connect to, from the moment its name
 * exists. Synchronous, because the process's umask is narrowed for the time of the call.
 */
export function listenUnix(path: string, backlog: number): number {
  const before = process.umask(0o177);
  try {
    return withSocket('bind', path, (fd, address) => {
      const bound = c.bind(fd, address, address.length);
      return bound < 0 ? bound : c.listen(fd, backlog);
    });
  } finally {
    process.umask(before);
  }
}

/**
 * An anonymous file in memory with `bytes` zeros. `sealed`: its size can never change. `hugePage`:
 * bytes of its huge pages, a power of two; 0 for ordinary ones.
 */
export function memoryFile(name: string, bytes: number, sealed = true, hugePage = 0): number {
  const huge = hugePage > 0 ? MFD_HUGETLB | (Math.log2(hugePage) << MFD_HUGE_SHIFT) : 0;
  const flags = (MFD_CLOEXEC | (sealed ? MFD_ALLOW_SEALING : 0) | huge) >>> 0;
  const fd = checked('memfd_create', c.memfdCreate(name, flags));
  if (c.ftruncate(fd, bytes) < 0 || (sealed && c.fcntl(fd, F_ADD_SEALS, SEAL.SHRINK | SEAL.GROW) < 0)) {
    const error = new SystemError('ftruncate', koffi.errno());
    c.close(fd);
    throw error;
  }
  return fd;
}

/** {@link SEAL} bits of a file, or −1 when its kind has none. */
export function seals(fd: number): number {
  return c.fcntl(fd, F_GET_SEALS, 0);
}

/** Seals a file against shrinking if its creator allows that. True when the file is sealed now. */
export function sealAgainstShrinking(fd: number): boolean {
  const now = seals(fd);
  if (now < 0) return false;
  if ((now & SEAL.SHRINK) !== 0) return true;
  return c.fcntl(fd, F_ADD_SEALS, SEAL.SHRINK) === 0;
}

/**
 * Adds {@link SEAL} bits. Throws `SystemError` if the file's kind or its creator does not allow
 * that.
 */
export function sealFile(fd: number, added: number): void {
  checked('fcntl(F_ADD_SEALS)', c.fcntl(fd, F_ADD_SEALS, added));
}

/** A counter that wakes a `poll` when it is above zero. eventfd(2) */
export function wakeFd(): number {
  return checked('eventfd', c.eventfd(0, EFD_CLOEXEC_NONBLOCK));
}

const ONE = new BigUint64Array([1n]);
const COUNT = new BigUint64Array(1);

/** Adds one to a {@link wakeFd}. */
export function wake(fd: number): void {
  c.write(fd, ONE, 8);
}

/** Sets a {@link wakeFd} back to zero. */
export function clearWake(fd: number): void {
  c.read(fd, COUNT, 8);
}

const SYSTEM_PAGE_BYTES: number = c.pageBytes();
const statfs = new Uint32Array(STATFS_WORDS);

/**
 * Size in bytes of the pages that a file is mapped in: the system's, or that of a file system of
 * huge pages. A mapping begins at a multiple of it in the file, and is unmapped in whole pages.
 * mmap(2), munmap(2)
 */
export function pageBytesOf(fd: number): number {
  checked('fstatfs', c.fstatfs(fd, statfs));
  return statfs[0] === HUGETLBFS_MAGIC ? (statfs[2] as number) : SYSTEM_PAGE_BYTES;
}

/**
 * Bytes of a file, mapped shared, in the pages that the file has. Huge pages are reserved for the
 * whole mapping, before they are touched. If there are too few, mapping fails; otherwise an access
 * would raise SIGBUS.
 */
export class FileMapping {
  /** Address of the bytes; undefined after {@link unmap}. */
  #address: number | undefined;
  /** The whole pages that hold the bytes: what is unmapped. */
  readonly #pages: number;
  readonly #pagesBytes: number;

  /** The descriptor stays the caller's. Throws `SystemError`. */
  constructor(fd: number, offset: number, bytes: number, writable: boolean) {
    const page = pageBytesOf(fd);
    const skipped = offset % page;
    this.#pagesBytes = Math.ceil((skipped + bytes) / page) * page;
    const protection = writable ? PROT_READ_WRITE : PROT_READ;
    const address = c.mmap(0, this.#pagesBytes, protection, MAP_SHARED, fd, offset - skipped);
    this.#pages = checked('mmap', Number(address));
    this.#address = this.#pages + skipped;
  }

  /** The bytes from `from` on, at most 4 GiB of them. */
  view(from: number, bytes: number): ArrayBuffer {
    if (this.#address === undefined) throw new Error('a view of what is not mapped any more');
    return viewOf(this.#address + from, bytes);
  }

  /**
   * Removes the mapping. No view of it may be touched afterwards. A second call does nothing.
   * Throws `SystemError`.
   */
  unmap(): void {
    if (this.#address === undefined) return;
    this.#address = undefined;
    checked('munmap', c.munmap(this.#pages, this.#pagesBytes));
  }
}

/** Memory at an address as an ArrayBuffer. At most 4 GiB, because Node 20 aborts above. */
function viewOf(address: number, bytes: number): ArrayBuffer {
  return koffi.view(BigInt(address), bytes);
}

/**
 * Zeroed memory at a known address, for the structures and bytes that system calls read and write.
 */
export class NativeBuffer {
  readonly address: number;
  readonly size: number;
  bytes: Uint8Array;
  words: Uint32Array;

  constructor(size: number) {
    this.size = size;
    const address = c.mmap(0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    this.address = checked('mmap', Number(address));
    const memory = viewOf(this.address, size);
    this.bytes = new Uint8Array(memory);
    this.words = new Uint32Array(memory);
  }

  /**
   * Frees the memory. The views of this object become empty; other views must not be used again.
   */
  free(): void {
    if (this.bytes.length === 0) return;
    this.bytes = new Uint8Array(0);
    this.words = new Uint32Array(0);
    checked('munmap', c.munmap(this.address, this.size));
  }
}

/** The CPU that this thread runs on now, or −1. sched_getcpu(3) */
export function currentCpu(): number {
  return c.getCpu();
}

/** `cpu_set_t` of 1024 CPUs. */
const CPU_MASK_WORDS = 32;
const allowed = new Uint32Array(CPU_MASK_WORDS);
const elsewhere = new Uint32Array(CPU_MASK_WORDS);

/**
 * Moves this thread to another CPU, if it may use one, and then leaves the choice to the scheduler
 * again. False: it may use no other. sched_setaffinity(2)
 */
export function leaveCpu(cpu: number): boolean {
  const word = cpu >>> 5;
  if (cpu < 0 || word >= CPU_MASK_WORDS || c.getAffinity(0, allowed.byteLength, allowed) < 0) return false;
  elsewhere.set(allowed);
  elsewhere[word] = (elsewhere[word] as number) & ~(1 << (cpu & 31));
  // Fails if the mask has no CPU left.
  if (c.setAffinity(0, elsewhere.byteLength, elsewhere) < 0) return false;
  return c.setAffinity(0, allowed.byteLength, allowed) >= 0;
}

/** recvmsg(2) on a prepared `struct msghdr`; −1 with {@link errno} on failure. */
export function recvmsg(fd: number, header: number, flags: number): number {
  return c.recvmsg(fd, header, flags);
}

/** sendmsg(2) on a prepared `struct msghdr`; −1 with {@link errno} on failure. */
export function sendmsg(fd: number, header: number, flags: number): number {
  return c.sendmsg(fd, header, flags);
}

/** send(2) that neither waits nor raises SIGPIPE; −1 with {@link errno} on failure. */
export function sendNow(fd: number, address: number, bytes: number): number {
  return c.send(fd, address, bytes, MSG.DONTWAIT | MSG.NOSIGNAL);
}

/** Descriptors to wait on: `struct pollfd`s in place, so that waiting allocates nothing. */
export class PollSet {
  readonly #buffer: NativeBuffer;
  readonly #count: number;
  readonly #address: number;

  constructor(count: number) {
    this.#buffer = new NativeBuffer(4096);
    this.#count = count;
    this.#address = this.#buffer.address;
    for (let i = 0; i < count; i++) this.set(i, -1, 0);
  }

  /** What to wait for at place `index`; a negative descriptor is left out. */
  set(index: number, fd: number, events: number): void {
    this.#buffer.words[index * 2] = fd;
    this.#buffer.words[index * 2 + 1] = events;
  }

  /** {@link POLL} bits that the last {@link wait} found at place `index`. */
  events(index: number): number {
    return (this.#buffer.words[index * 2 + 1] as number) >>> 16;
  }

  /**
   * Waits; returns how many places have events: 0 after `milliseconds` (−1 = no limit) or a signal.
   */
  wait(milliseconds: number): number {
    const ready = c.poll(this.#address, this.#count, milliseconds);
    if (ready >= 0) return ready;
    if (koffi.errno() === ERRNO.EINTR) return 0;
    throw new SystemError('poll', koffi.errno());
  }

  free(): void {
    this.#buffer.free();
  }
}
