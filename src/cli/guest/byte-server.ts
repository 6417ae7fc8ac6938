import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

/** Most bytes that one request moves. */
const LIMIT = 1 << 30;

/** One transfer, as the host saw it. */
export interface ServedTransfer {
  readonly direction: 'down' | 'up';
  readonly bytes: number;
  readonly md5: string;
}

/**
 * Repeatable bytes without a period (xorshift32): a page delivered twice or not at all changes the
 * sum.
 */
export function pattern(bytes: number): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  let state = 0x2545f491;
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return Buffer.from(words.buffer, 0, bytes);
}

/**
 * The host's end of the guest's network traffic, on 127.0.0.1: `GET /download?bytes=N` gives N
 * bytes, `POST /upload` answers with the MD5 of what came. Keeps a list of both, to compare with
 * what the guest says.
 */
export class ByteServer {
  readonly transfers: ServedTransfer[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => this.#serve(request, response));
  }

  /** Listens on a free port of the loopback address. */
  static async open(): Promise<ByteServer> {
    const server = new ByteServer();
    await new Promise<void>((done, failed) => {
      server.#server.once('error', failed);
      server.#server.listen(0, '127.0.0.1', done);
    });
    return server;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((done) => this.#server.close(() => done()));
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'http://localhost');
    if (request.method === 'GET' && url.pathname === '/download') this.#download(url, response);
    else if (request.method === 'POST' && url.pathname === '/upload') this.#upload(request, response);
    else response.writeHead(404, { connection: 'close' }).end('not here\n');
  }

  #download(url: URL, response: ServerResponse): void {
    const bytes = Number(url.searchParams.get('bytes'));
    if (!Number.isInteger(bytes) || bytes < 0 || bytes > LIMIT) {
      response.writeHead(400, { connection: 'close' }).end('bytes?\n');
      return;
    }
    const data = pattern(bytes);
    this.transfers.push({ direction: 'down', bytes, md5: createHash('md5').update(data).digest('hex') });
    response.writeHead(200, { 'content-length': bytes, connection: 'close' }).end(data);
  }

  #upload(request: IncomingMessage, response: ServerResponse): void {
    const hash = createHash('md5');
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > LIMIT) request.destroy();
      hash.update(chunk);
    });
    request.on('end', () => {
      const md5 = hash.digest('hex');
      this.transfers.push({ direction: 'up', bytes, md5 });
      response.writeHead(200, { connection: 'close' }).end(md5);
    });
  }
}
