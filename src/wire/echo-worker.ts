/** Thread that echoes on the descriptor it is started with; see {@link serveEcho}. */
import { workerData } from 'node:worker_threads';
import { serveEcho } from './echo.js';

serveEcho((workerData as { readonly fd: number }).fd);
