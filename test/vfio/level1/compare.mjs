/**
 * Compares what level 1's own IOMMU was told (its iommu:map and iommu:unmap trace events) with what
 * our daemon asked for (its report). Only the thread group of the QEMU counts, by its name. Prints
 * lines for the test outside.
 *
 *   node compare.mjs TRACE REPORT
 */
import { readFileSync } from 'node:fs';

const [traceFile, reportFile] = process.argv.slice(2);
const IOCTL = /^\s*(\S+) .*: sys_ioctl\(fd: (?:0x)?[0-9a-f]+, cmd: (?:0x)?([0-9a-f]+)/;
/** A negative errno. */
const FAILURE = /^\s*(\S+) .*: sys_ioctl -> 0xf/;
/**
 * Not in an interrupt: level 1's own drivers map and unmap there, on whatever thread it interrupts.
 */
const EVENT =
  /^\s*(\S+) +\[\d+\] ..\.\S* .*: (map|unmap): IOMMU: iova=0x([0-9a-f]+) - 0x[0-9a-f]+ (?:paddr=\S+ )?size=(\d+)/;
/** VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP, and their opposites. */
const MAPS = ['3b71', '3b85'];
const UNMAPS = ['3b72', '3b86'];
const PAGE = 4096;

/** What is mapped, page by page: the host unmaps in other pieces than it maps. */
class Mapped {
  #pages = new Set();

  get bytes() {
    return this.#pages.size * PAGE;
  }

  map(iova, size) {
    const before = this.bytes;
    for (let page = iova / PAGE; page < (iova + size) / PAGE; page++) this.#pages.add(page);
    return this.bytes - before;
  }

  /** Returns the bytes that were there. */
  unmap(iova, size) {
    const before = this.bytes;
    for (let page = iova / PAGE; page < (iova + size) / PAGE; page++) this.#pages.delete(page);
    return before - this.bytes;
  }
}

/** Requests are QEMU's ioctls; bytes are what its container's IOMMU did in them, and in its end. */
function readTrace(text) {
  const mapped = new Mapped();
  const seen = {
    mapRequests: 0,
    unmapRequests: 0,
    mappedBytes: 0,
    unmappedBytes: 0,
    mappedTwice: 0,
    mapsRefused: 0,
  };
  /** The ioctl that each thread entered last. */
  const within = new Map();
  for (const line of text.split('\n')) {
    const call = IOCTL.exec(line);
    if (call !== null) {
      if (!call[1].startsWith('qemu-system')) continue;
      within.set(call[1], call[2]);
      if (MAPS.includes(call[2])) seen.mapRequests++;
      if (UNMAPS.includes(call[2])) seen.unmapRequests++;
      continue;
    }
    const failure = FAILURE.exec(line);
    if (failure !== null && MAPS.includes(within.get(failure[1]))) seen.mapsRefused++;
    const match = EVENT.exec(line);
    if (match === null || !match[1].startsWith('qemu-system')) continue;
    const iova = Number.parseInt(match[3], 16);
    const size = Number(match[4]);
    if (match[2] === 'unmap') {
      seen.unmappedBytes += mapped.unmap(iova, size);
    } else if (MAPS.includes(within.get(match[1]))) {
      seen.mappedBytes += size;
      seen.mappedTwice += size - mapped.map(iova, size);
    }
  }
  return { ...seen, left: mapped.bytes };
}

const words = (values) =>
  Object.entries(values)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');

const trace = readFileSync(traceFile, 'utf8');
const written = /entries-in-buffer\/entries-written: (\d+)\/(\d+)/.exec(trace);
const lost = written === null ? 0 : Number(written[2]) - Number(written[1]);
console.log(`VIOMMU-L1: seen ${words(readTrace(trace))} lost=${lost}`);
const [report] = Object.values(JSON.parse(readFileSync(reportFile, 'utf8')));
console.log(`VIOMMU-L1: report ${JSON.stringify(report)}`);
