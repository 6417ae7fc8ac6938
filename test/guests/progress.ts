/**
 * Tells a guest that is slow from one that is stuck. A guest says nothing on its console for as
 * long as one step of a job takes; on a machine with much else to do that is minutes. The counters
 * of its session move all the same.
 */
import { ControlClient } from '../../src/cli/control-client.js';
import type { ReportAnswer } from '../../src/cli/control-protocol.js';

const ASK_MS = 5000;

export class Progress {
  readonly #control: string;
  readonly #vm: string;
  readonly #moved: () => void;
  readonly #timer: NodeJS.Timeout;
  #client: ControlClient | undefined;
  #asking = false;
  #last = '';

  /**
   * @param control socket of the daemon's control channel; where no daemon answers there, nothing
   *   is known
   * @param moved called whenever counters have moved
   */
  constructor(control: string, vm: string, moved: () => void, askMs = ASK_MS) {
    this.#control = control;
    this.#vm = vm;
    this.#moved = moved;
    this.#timer = setInterval(() => void this.#look(), askMs);
    this.#timer.unref();
  }

  /** The counters as they were last, for a message. */
  get counters(): string {
    return this.#last;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#client?.close();
  }

  async #look(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      this.#client ??= await ControlClient.connect(this.#control);
      const { report } = (await this.#client.request('report', { vm: this.#vm })) as ReportAnswer;
      const counters = JSON.stringify({ ...report.counters, ...report.bridge });
      if (counters !== this.#last) this.#moved();
      this.#last = counters;
    } catch {
      // No session of that name yet, or none any more: a new connection next time.
      this.#client?.close();
      this.#client = undefined;
    } finally {
      this.#asking = false;
    }
  }
}
