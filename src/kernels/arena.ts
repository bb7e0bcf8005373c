/**
 * The memory the kernels work in: one growing run of bytes, handed out in blocks.
 *
 * A block is a pointer (a byte offset), aligned to 64 bytes, filled with zeros. Freed blocks are joined with free
 * neighbours and used again, first fit; the arena grows only when no free block is large enough.
 */
import { ArgumentError, MemoryError } from "../errors.ts";

/** What an arena grows in: a `WebAssembly.Memory`, or a stand-in where there is none. */
export interface GrowableMemory {
  readonly buffer: ArrayBufferLike;
  /** Add pages of 64 KiB. Throws RangeError when there is no room for them. */
  grow(pages: number): number;
}

const pageBytes = 65_536;
const alignment = 64;
/** Pointers start here: 0 stays "no pointer". The compiler keeps nothing below it that a kernel needs. */
const firstByte = 4096;
/** The end of 32-bit pointers, less a page. */
const addressableBytes = 2 ** 32 - pageBytes;

interface Block {
  readonly start: number;
  readonly end: number;
}

export interface ArenaOptions {
  /** Most bytes the arena may take, in whole pages of 64 KiB. Default: what 32-bit pointers reach, 4 GiB less a page. */
  readonly maximumBytes?: number;
}

export class Arena {
  readonly memory: GrowableMemory;
  readonly maximumBytes: number;
  #free: Block[];
  readonly #used = new Map<number, number>();
  #usedBytes = 0;
  #floats!: Float32Array<ArrayBufferLike>;
  #integers!: Int32Array<ArrayBufferLike>;
  #bytes!: Uint8Array<ArrayBufferLike>;

  constructor(memory: GrowableMemory, { maximumBytes = addressableBytes }: ArenaOptions = {}) {
    const least = Math.max(memory.buffer.byteLength, pageBytes);
    if (!(Number.isSafeInteger(maximumBytes) && maximumBytes >= least && maximumBytes <= addressableBytes)) {
      throw new ArgumentError("maximumBytes", `an integer from ${least} to ${addressableBytes}`, maximumBytes);
    }
    this.memory = memory;
    this.maximumBytes = maximumBytes;
    this.#look();
    this.#free = this.size > firstByte ? [{ start: firstByte, end: this.size }] : [];
  }

  /** Bytes taken from the runtime. Never shrinks. */
  get size(): number {
    return this.#bytes.length;
  }

  /** Bytes handed out and not freed, rounded up to the alignment. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** The whole memory as floats: element `pointer / 4`. Take it anew after every `allocate`. */
  get floats(): Float32Array<ArrayBufferLike> {
    return this.#floats;
  }

  /** As `floats`. */
  get integers(): Int32Array<ArrayBufferLike> {
    return this.#integers;
  }

  /** As `floats`: element `pointer`. */
  get bytes(): Uint8Array<ArrayBufferLike> {
    return this.#bytes;
  }

  /**
   * @param bytes size of the block, at least 1
   * @returns its pointer; its bytes are 0
   * @throws MemoryError when it does not fit below `maximumBytes` or the runtime has no more; nothing has changed then
   */
  allocate(bytes: number): number {
    if (!(Number.isSafeInteger(bytes) && bytes > 0)) throw new ArgumentError("bytes", "an integer >= 1", bytes);
    const size = Math.ceil(bytes / alignment) * alignment;
    let at = this.#free.findIndex((block) => block.end - block.start >= size);
    if (at < 0) {
      this.#grow(size);
      at = this.#free.length - 1;
    }
    const { start, end } = this.#free[at]!;
    if (end - start === size) this.#free.splice(at, 1);
    else this.#free[at] = { start: start + size, end };
    this.#used.set(start, size);
    this.#usedBytes += size;
    this.#bytes.fill(0, start, start + size);
    return start;
  }

  /** Give a block back. `pointer` must come from `allocate` and not be freed yet. */
  free(pointer: number): void {
    const size = this.#used.get(pointer);
    if (size === undefined) throw new ArgumentError("pointer", "a block in use", pointer);
    this.#used.delete(pointer);
    this.#usedBytes -= size;
    let start = pointer;
    let end = pointer + size;
    let at = this.#free.findIndex((block) => block.start > pointer);
    if (at < 0) at = this.#free.length;
    let joined = 0;
    if (this.#free[at]?.start === end) {
      end = this.#free[at]!.end;
      joined++;
    }
    if (at > 0 && this.#free[at - 1]!.end === start) {
      start = this.#free[--at]!.start;
      joined++;
    }
    this.#free.splice(at, joined, { start, end });
  }

  /**
   * Make room for blocks of `bytes` in all behind the last one, without handing them out.
   * @throws MemoryError when there is none; nothing has changed then
   */
  reserve(bytes: number): void {
    if (!(Number.isSafeInteger(bytes) && bytes >= 0)) throw new ArgumentError("bytes", "an integer >= 0", bytes);
    if (bytes > this.#freeAtEnd()) this.#grow(bytes);
  }

  #freeAtEnd(): number {
    const last = this.#free.at(-1);
    return last !== undefined && last.end === this.size ? last.end - last.start : 0;
  }

  #grow(size: number): void {
    const old = this.size;
    const start = Math.max(old - this.#freeAtEnd(), firstByte);
    const room = Math.floor(this.maximumBytes / pageBytes) * pageBytes - start;
    if (size > room) throw new MemoryError(size, room);
    try {
      this.memory.grow(Math.ceil((start + size - old) / pageBytes));
    } catch {
      throw new MemoryError(size, Math.max(old - start, 0));
    }
    this.#look();
    if (start < old) this.#free.pop();
    this.#free.push({ start, end: this.size });
  }

  #look(): void {
    const { buffer } = this.memory;
    this.#floats = new Float32Array(buffer);
    this.#integers = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
  }
}

/** Memory for the plain kernels: it needs no WebAssembly. Growing copies. */
export class PlainMemory implements GrowableMemory {
  #buffer = new ArrayBuffer(pageBytes);

  get buffer(): ArrayBuffer {
    return this.#buffer;
  }

  grow(pages: number): number {
    const old = this.#buffer;
    const grown = new ArrayBuffer(old.byteLength + pages * pageBytes);
    new Uint8Array(grown).set(new Uint8Array(old));
    this.#buffer = grown;
    return old.byteLength / pageBytes;
  }
}
