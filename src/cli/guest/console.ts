/**
 * What the guest image prints on its console, as data. test/guests/image/README.md describes the
 * lines.
 */

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

/**
 * Cuts a byte stream into lines: carriage returns dropped, a last line without newline given by
 * {@link end}.
 */
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
