/** A strict little reader of XML, for tests that ask whether markup is well-formed and what is in it. */

/**
 * Checks that `text` is one well-formed element: tags nest and match, attributes are quoted and unique, every "&" begins
 * a known entity, no bare "<" and no character that XML forbids.
 * @throws Error saying where it is not
 */
export function parseXml(text: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const forbidden = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/.exec(text);
  if (forbidden !== null) throw new Error(`forbidden character at ${forbidden.index}`);
  const open: string[] = [];
  let at = 0;
  let roots = 0;
  while (at < text.length) {
    if (text[at] !== "<") {
      const next = text.indexOf("<", at);
      const stretch = text.slice(at, next < 0 ? text.length : next);
      checkText(stretch, at);
      if (open.length === 0 && stretch.trim() !== "") throw new Error(`text outside the root at ${at}`);
      at += stretch.length;
      continue;
    }
    const tag = /^<(\/?)([a-zA-Z][\w:-]*)((?:\s+[a-zA-Z][\w:-]*="[^"<]*")*)\s*(\/?)>/.exec(text.slice(at));
    if (tag === null) throw new Error(`no tag at ${at}: ${text.slice(at, at + 40)}`);
    const [whole, closing, name, list, empty] = tag;
    const names = [...list!.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, attribute, value]) => {
      checkText(value!, at);
      return attribute;
    });
    if (new Set(names).size !== names.length) throw new Error(`an attribute twice at ${at}`);
    if (closing === "/") {
      const expected = open.pop();
      if (expected !== name) throw new Error(`</${name}> closes <${expected}> at ${at}`);
    } else {
      if (open.length === 0) roots++;
      if (empty !== "/") open.push(name!);
    }
    at += whole.length;
  }
  if (open.length > 0) throw new Error(`<${open.at(-1)}> is not closed`);
  if (roots !== 1) throw new Error(`${roots} root elements`);
}

function checkText(text: string, at: number): void {
  const entity = /&(?!(amp|lt|gt|quot|#\d+);)/.exec(text);
  if (entity !== null) throw new Error(`a bare "&" near ${at}`);
}

/** The attributes of every element of that name, in order. */
export function attributes(text: string, element: string): Record<string, string>[] {
  return [...text.matchAll(new RegExp(`<${element}((?:\\s+[\\w:-]+="[^"]*")*)\\s*/?>`, "g"))].map(([, list]) =>
    Object.fromEntries([...list!.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, name, value]) => [name!, value!])),
  );
}

/** What the text elements say, in order. */
export function texts(text: string): string[] {
  const plain: Record<string, string> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };
  return [...text.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, content]) =>
    content!.replace(/&(amp|lt|gt|quot|#39);/g, (entity) => plain[entity]!),
  );
}
