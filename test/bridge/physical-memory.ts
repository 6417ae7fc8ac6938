import { createConnection, type Socket } from 'node:net';

const SECONDS = 20;

/**
 * Reads and writes a machine's physical memory, device registers included, through QEMU's gdb stub:
 * what a guest would do, without a guest. The machine stands still while this is connected; devices
 * and their DMA do not.
 */
export class PhysicalMemory {
  readonly #socket: Socket;
  #text = '';
  #last: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => {
      this.#text += data.toString('latin1');
      this.#wake();
    });
  }

  /** @param path where `-gdb unix:PATH,server=on,wait=off` listens */
  static async connect(path: string): Promise<PhysicalMemory> {
    for (let tries = 0; ; tries++) {
      const socket = await open(path);
      if (socket !== undefined) {
        const memory = new PhysicalMemory(socket);
        if ((await memory.#ask('Qqemu.PhyMemMode:1')) !== 'OK') throw new Error('no physical memory mode');
        return memory;
      }
      if (tries === 20 * SECONDS) throw new Error(`no process listens on ${path}`);
      await new Promise((wake) => setTimeout(wake, 50));
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  async read(address: number, size: number): Promise<Buffer> {
    const answer = await this.#ask(`m${address.toString(16)},${size.toString(16)}`);
    if (answer.startsWith('E')) throw new Error(`read at 0x${address.toString(16)}: ${answer}`);
    return Buffer.from(answer, 'hex');
  }

  async write(address: number, bytes: Uint8Array): Promise<void> {
    const hex = Buffer.from(bytes).toString('hex');
    const answer = await this.#ask(`M${address.toString(16)},${bytes.length.toString(16)}:${hex}`);
    if (answer !== 'OK') throw new Error(`write at 0x${address.toString(16)}: ${answer}`);
  }

  /** One access of 1, 2 or 4 bytes. */
  async readWord(address: number, size: 1 | 2 | 4 = 4): Promise<number> {
    return (await this.read(address, size)).readUIntLE(0, size);
  }

  async writeWord(address: number, value: number, size: 1 | 2 | 4 = 4): Promise<void> {
    const bytes = Buffer.alloc(size);
    bytes.writeUIntLE(value, 0, size);
    await this.write(address, bytes);
  }

  /** Sets a 64-bit register of the first vCPU, by its number in gdb's protocol. */
  async setRegister(register: number, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    const answer = await this.#ask(`P${register.toString(16)}=${bytes.toString('hex')}`);
    if (answer !== 'OK') throw new Error(`register ${register}: ${answer}`);
  }

  /** Executes one instruction of the first vCPU. */
  async step(): Promise<void> {
    const answer = await this.#ask('s');
    if (!answer.startsWith('T05')) throw new Error(`step: ${answer}`);
  }

  /** One packet at a time, in the order they were asked for. */
  #ask(packet: string): Promise<string> {
    const answer = this.#last.then(() => this.#exchange(packet));
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  async #exchange(packet: string): Promise<string> {
    let sum = 0;
    for (const byte of Buffer.from(packet, 'latin1')) sum = (sum + byte) & 0xff;
    this.#socket.write(`$${packet}#${sum.toString(16).padStart(2, '0')}`);
    const deadline = Date.now() + 1000 * SECONDS;
    for (;;) {
      const answer = /^\+*\$([^#]*)#../.exec(this.#text);
      if (answer !== null) {
        this.#text = this.#text.slice(answer[0].length);
        this.#socket.write('+');
        return answer[1] as string;
      }
      if (Date.now() > deadline) throw new Error(`no answer to ${packet.slice(0, 40)}`);
      await new Promise<void>((wake) => {
        const timer = setTimeout(wake, 200);
        this.#wake = () => {
          clearTimeout(timer);
          wake();
        };
      });
    }
  }
}

function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path, () => resolve(socket));
    socket.on('error', () => resolve(undefined));
  });
}
