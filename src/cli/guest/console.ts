/** What the guest image prints on its console, as data. test/guests/image/README.md describes the lines. */

const MARK = 'VIOMMU-GUEST: ';

/** One `VIOMMU-GUEST:` line. */
export interface GuestRecord {
  /** Job that printed it, or `READY`, `WAITING`, `DONE`, `boot`, `faults`. */
  readonly job: string;
  /** `key=value` words; quoted values without their quotes. */
  readonly values: Readonly<Record<string, string>>;
  /** What follows a `|`: a line that the job passed on. */
  readonly text?: string;
}

/** The record of a console line, or undefined when it is none. */
export function parseRecord(line: string): GuestRecord | undefined {
  const at = line.indexOf(MARK);
  if (at < 0) return undefined;
  const rest = line.slice(at + MARK.length).trimEnd();
  const job = /^\S*/.exec(rest)?.[0] ?? '';
  const after = rest.slice(job.length);
  if (after === ' |' || after.startsWith(' | ')) return { job, values: {}, text: after.slice(3) };
  const values: Record<string, string> = {};
  for (const match of after.matchAll(/([\w.-]+)=(?:"([^"]*)"|(\S*))/g)) {
    values[match[1] ?? ''] = match[2] ?? match[3] ?? '';
  }
  return { job, values };
}

/** A DMA fault as the kernel's Intel IOMMU driver reports it. */
export interface KernelFault {
  readonly operation: 'read' | 'write';
  /** As the kernel prints it: `00:05.0`. */
  readonly device: string;
  /** As the kernel prints it: hexadecimal without 0x in 6.1 and later, page-aligned. */
  readonly address: string;
  readonly reason: number;
  readonly text: string;
}

const FAULT =
  /\[DMA (Read|Write)(?: NO_PASID| PASID \w+)?\] Request device \[([0-9a-f:.]+)\] (?:PASID \S+ )?fault addr (0x)?([0-9a-f]+) \[fault reason (0x[0-9a-f]+|\d+)\] (.*)/;

/** The fault that a line of the kernel's log reports, or undefined. */
export function parseKernelFault(line: string): KernelFault | undefined {
  const match = FAULT.exec(line);
  if (match === null) return undefined;
  const [, operation = '', device = '', , address = '', reason = '', text = ''] = match;
  return {
    operation: operation === 'Read' ? 'read' : 'write',
    device,
    address: `0x${address}`,
    reason: Number(reason),
    text: text.trim(),
  };
}

/** Cuts a byte stream into lines: carriage returns dropped, a last line without newline given by {@link end}. */
export class LineSplitter {
  #rest = '';
  readonly #onLine: (line: string) => void;

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(chunk: string): void {
    const parts = (this.#rest + chunk).split('\n');
    this.#rest = parts.pop() ?? '';
    for (const part of parts) this.#onLine(part.replaceAll('\r', ''));
  }

  end(): void {
    if (this.#rest !== '') this.#onLine(this.#rest.replaceAll('\r', ''));
    this.#rest = '';
  }
}
