import { closeSync, fstatSync, readdirSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { closeFd, memoryFile, socketPair } from '../base/native.js';
import { Channel, FILL } from './channel.js';
import { CODEC } from './codec.js';
import { FLAG, HEADER_BYTES, MAX_BODY_BYTES, MESSAGE } from './frame.js';

const open: Channel[] = [];

function pair(): [Channel, Channel] {
  const [a, b] = socketPair();
  const channels: [Channel, Channel] = [new Channel(a), new Channel(b)];
  open.push(...channels);
  return channels;
}

function header(type: number, flags: number, size: number, id: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  new Uint32Array(bytes.buffer).set([type, flags, size, id]);
  return bytes;
}

/** Descriptors that this process has. */
const count = (): number => readdirSync('/proc/self/fd').length;

const write = { offset: 0x18, size: 4, lo: 0x8000_0000, hi: 0 };

afterEach(() => {
  for (const channel of open.splice(0)) channel.close();
});

describe('a channel', () => {
  it('carries frames in order, several in one receive', () => {
    const [a, b] = pair();
    for (let id = 0; id < 5; id++) a.put(MESSAGE.REG_WRITE, 0, id, CODEC.RegWrite, { ...write, hi: id });
    expect(a.flush()).toBe(true);
    expect(b.fill()).toBe(FILL.DATA);
    for (let id = 0; id < 5; id++) {
      expect(b.next()).toBe(true);
      expect(b.frame.id).toBe(id);
      expect({ ...b.body(CODEC.RegWrite) }).toEqual({ ...write, hi: id });
    }
    expect(b.next()).toBe(false);
    expect(b.fill()).toBe(FILL.NOTHING);
  });

  it('puts together a frame that comes byte by byte', () => {
    const [a, b] = pair();
    const bytes = new Uint8Array([...header(MESSAGE.REG_WRITE, 1, 2, 7), 0x10, 4]);
    for (const byte of bytes) {
      expect(b.next()).toBe(false);
      a.putRaw(new Uint8Array([byte]));
      a.flush();
      b.fill();
    }
    expect(b.next()).toBe(true);
    expect(b.body(CODEC.RegWrite).size).toBe(4);
  });

  it('keeps what the socket does not take, moves it, and loses nothing', () => {
    const [a, b] = pair();
    const data = new Uint8Array(4096);
    let sent = 0;
    while (a.flush()) {
      data.fill(sent & 255);
      a.put(MESSAGE.MEM_WRITE, 0, sent++, CODEC.MemWrite, { gpaLo: sent, gpaHi: 0, data });
    }
    for (let i = 0; i < 300; i++)
      a.put(MESSAGE.MEM_WRITE, 0, sent++, CODEC.MemWrite, { gpaLo: sent, gpaHi: 0, data });
    expect(a.unsent).toBeGreaterThan(1_000_000);
    let got = 0;
    for (let idle = 0; idle < 2; ) {
      a.flush();
      if (b.fill() === FILL.NOTHING) idle++;
      while (b.next()) {
        expect(b.frame.id).toBe(got++);
        expect(b.body(CODEC.MemWrite).gpaLo).toBe(got);
      }
    }
    expect(got).toBe(sent);
    expect(a.unsent).toBe(0);
  });

  it('gives up on a peer that never reads', () => {
    const [a] = pair();
    const data = new Uint8Array(4096);
    expect(() => {
      for (let i = 0; i < 5000; i++)
        a.put(MESSAGE.MEM_WRITE, 0, i, CODEC.MemWrite, { gpaLo: 0, gpaHi: 0, data });
    }).toThrow(expect.objectContaining({ reason: 'PEER_STALLED' }));
  });

  it('takes a body of the largest size and refuses one byte more before it is read', () => {
    const [a, b] = pair();
    a.putRaw(header(MESSAGE.ERROR, 1, MAX_BODY_BYTES, 0));
    a.putRaw(new Uint8Array(MAX_BODY_BYTES));
    const take = (): boolean => {
      a.flush();
      b.fill();
      return b.next();
    };
    let tries = 0;
    while (!take()) expect(tries++).toBeLessThan(20);
    expect(b.frame.end - b.frame.start).toBe(MAX_BODY_BYTES);
    a.putRaw(header(MESSAGE.ERROR, 1, MAX_BODY_BYTES + 1, 0));
    expect(take).toThrow(expect.objectContaining({ reason: 'FRAME_TOO_LONG' }));
  });

  it.each([
    ['version 0', 0],
    ['version 2', 2],
    ['a reserved bit', 0x11],
  ])('refuses a header with %s', (_, flags) => {
    const [a, b] = pair();
    a.putRaw(header(MESSAGE.RESET, flags, 0, 1));
    a.flush();
    b.fill();
    expect(() => b.next()).toThrow(expect.objectContaining({ reason: 'BAD_HEADER' }));
  });

  it('tells a close between frames from one inside a frame', () => {
    const [a, b] = pair();
    a.put(MESSAGE.RESET, FLAG.NEED_REPLY, 1, CODEC.Reset, {});
    a.flush();
    a.close();
    b.fill();
    expect(b.next()).toBe(true);
    expect(b.fill()).toBe(FILL.CLOSED);
    expect(b.ending().reason).toBe('PEER_CLOSED');

    const [c, d] = pair();
    c.putRaw(header(MESSAGE.RESET, 1, 0, 1).subarray(0, 9));
    c.flush();
    c.close();
    d.fill();
    expect(d.next()).toBe(false);
    expect(d.fill()).toBe(FILL.CLOSED);
    expect(d.ending().reason).toBe('FRAME_TRUNCATED');
  });
});

describe('descriptors', () => {
  const send = (channel: Channel, type: number, descriptors: number[]): void => {
    channel.put(type, 0, 1, CODEC.RegWrite, write);
    if (descriptors.length > 0) channel.flushWithDescriptors(descriptors);
    channel.flush();
  };

  it('come with the frame they were sent with, whatever stands in front of it', () => {
    const [a, b] = pair();
    const file = memoryFile('test', 8192);
    send(a, MESSAGE.REG_WRITE, []);
    send(a, MESSAGE.MEM_ADD, [file, file]);
    send(a, MESSAGE.REG_WRITE, []);
    const seen: [number, number][] = [];
    for (let i = 0; i < 2; i++) {
      b.fill();
      while (b.next()) {
        seen.push([b.frame.type, b.frame.descriptors.length]);
        for (const fd of b.frame.descriptors) expect(fstatSync(fd).size).toBe(8192);
        b.dropDescriptors();
      }
    }
    expect(seen).toEqual([
      [MESSAGE.REG_WRITE, 0],
      [MESSAGE.MEM_ADD, 2],
      [MESSAGE.REG_WRITE, 0],
    ]);
    closeSync(file);
  });

  it('are closed when the frame is dropped and when the channel closes before it is taken', () => {
    const [a, b] = pair();
    const file = memoryFile('test', 4096);
    const before = count();
    send(a, MESSAGE.MEM_ADD, [file]);
    b.fill();
    b.next();
    expect(count()).toBe(before + 1);
    b.dropDescriptors();
    expect(count()).toBe(before);
    send(a, MESSAGE.MEM_ADD, [file]);
    b.fill();
    expect(count()).toBe(before + 1);
    b.close();
    // The channel's own socket is closed too.
    expect(count()).toBe(before - 1);
    closeFd(file);
  });

  it('more than a frame may have, or in the middle of one, end the connection and leak nothing', () => {
    const [a, b] = pair();
    const file = memoryFile('test', 4096);
    const before = count();
    send(a, MESSAGE.MEM_ADD, new Array<number>(9).fill(file));
    expect(() => b.fill()).toThrow(expect.objectContaining({ reason: 'EXTRA_DESCRIPTOR' }));
    expect(count()).toBe(before);

    const [c, d] = pair();
    c.putRaw(header(MESSAGE.REG_WRITE, 1, 2, 0));
    c.flush();
    d.fill();
    expect(d.next()).toBe(false);
    c.putRaw(new Uint8Array([0x10, 4]));
    c.flushWithDescriptors([file]);
    d.fill();
    expect(() => d.next()).toThrow(expect.objectContaining({ reason: 'EXTRA_DESCRIPTOR' }));
    d.close();
    c.close();
    expect(count()).toBe(before);
    closeFd(file);
  });
});
