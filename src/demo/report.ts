/**
 * The report: one HTML file with everything in it. No script runs, nothing is fetched; colours follow the reader's
 * light or dark setting. Every plot stands beside a table of its figures, and all figures are in the page as JSON.
 */
import { tableOf } from "../comparison/speculative-report.ts";
import { cutPromptPicture, mergingPicture } from "./dynamic-token-pictures.ts";
import type { DynamicTokenFigures } from "./dynamic-tokens.ts";
import type { FamilyFigures } from "./family.ts";
import { acceptancePicture, familySpeedPicture, familyTokensPicture } from "./family-pictures.ts";
import { breakEven, type Figures, promptTable, runnerRemark, sampledRemark, share, yesNo } from "./figures.ts";
import type { LanguageFigures } from "./languages.ts";
import {
  bitsPicture,
  completionPicture,
  gammaPicture,
  languagePicture,
  learningPicture,
  passCostPicture,
  positionPicture,
} from "./pictures.ts";
import { escaped, paletteCss, plotCss } from "./plot.ts";

const pageCss = `${paletteCss(":root")}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);font:16px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:780px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3em}
h2{font-size:1.3rem;margin:2.4em 0 .4em}
p{margin:.6em 0}
.lead,figcaption,footer{color:var(--muted)}
.facts{display:flex;flex-wrap:wrap;gap:12px;margin:1.4em 0;padding:0;list-style:none}
.facts li{flex:1 1 160px;border:1px solid var(--grid);border-radius:8px;padding:10px 14px}
.facts strong{display:block;font-size:1.6rem;line-height:1.25}
.facts span{display:block;color:var(--muted);font-size:.87rem;line-height:1.4}
figure{margin:1em 0;overflow-x:auto}
figure svg{min-width:540px}
figcaption,footer{font-size:.9rem}
table{border-collapse:collapse;font-size:.9rem;margin:.6em 0;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;text-align:right;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child,.left{text-align:left}
th:first-child,td:first-child{white-space:nowrap}
th{font-weight:600;vertical-align:bottom}
details{margin:.5em 0;overflow-x:auto}
summary{cursor:pointer;color:var(--muted)}
code,pre{font:.87em ui-monospace,'Cascadia Mono',Consolas,'DejaVu Sans Mono',monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--grid);border-radius:8px;padding:12px}
.draft{background:var(--tint0);text-decoration:underline;text-decoration-color:var(--series0)}
.target{background:var(--tint1)}
@media print{details>*{display:block}}`;

/** The whole page. */
export function reportHtml(figures: Figures): string {
  const { run, speculation, languages } = figures;
  // "<" cannot end the element it stands in when it is spelled as an escape.
  const data = JSON.stringify(figures).replaceAll("<", "\\u003c");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>tokenthrift: the demo's report</title>
<style>
${pageCss}
${plotCss}
</style>
</head>
<body>
<main>
<h1>Fewer tokens, fewer passes</h1>
<p class="lead">What <code>tokenthrift demo</code> measured on this machine: tokenthrift ${escaped(run.tokenthrift)},
Node ${escaped(run.node)}, backend ${escaped(run.backend)}, ${escaped(run.processor)}; ${run.seconds.toFixed(0)} seconds.</p>
${summary(figures)}
${speculationSection(speculation)}
${familySection(figures.family)}
${languageSection(languages)}
${dynamicTokenSection(figures.dynamicTokens)}
${modelSection(figures)}
<footer><p>All figures of this page are in it as JSON (the element with the id <code>figures</code>) and in
<code>figures.json</code> beside it. Counts are the same on every machine; seconds are this machine's and given as ratios
only.</p></footer>
</main>
<script type="application/json" id="figures">${data}</script>
</body>
</html>
`;
}

function summary({ speculation, languages }: Figures): string {
  const { tensors, engine } = speculation;
  const fastest = tensors.byGamma.find(({ gamma }) => gamma === tensors.fastestGamma)!;
  const most = tensors.byGamma.reduce((a, b) => (b.tokensPerPass > a.tokensPerPass ? b : a));
  const completions = [tensors, engine].flatMap(({ byGamma }) => byGamma.flatMap((one) => one.prompts));
  const equal = completions.filter(({ identical }) => identical).length;
  const facts = [
    [most.tokensPerPass.toFixed(2), `tokens per target pass at gamma ${most.gamma}; plain decoding has 1`],
    [
      `${fastest.secondsRatio.toFixed(2)} \u00d7`,
      `as fast as plain decoding at gamma ${fastest.gamma} where wide passes are cheap, in this run`,
    ],
    [
      equal === completions.length ? "yes" : "NO",
      `identical to plain decoding, token for token: ${equal} of ${completions.length} completions`,
    ],
  ];
  if (!("unavailable" in languages)) {
    const of = (tag: string): string =>
      languages.languages.find((language) => language.tag === tag)!.byVocabulary[0]!.bytesPerToken.toFixed(2);
    facts.push([of("en"), `bytes per token in English, ${of("ja")} in Japanese, with the embedded vocabulary`]);
  }
  return `<ul class="facts">${facts
    .map(([value, text]) => `<li><strong>${escaped(value!)}</strong><span>${escaped(text!)}</span></li>`)
    .join("")}</ul>`;
}

function speculationSection(speculation: Figures["speculation"]): string {
  const { tensors, engine } = speculation;
  const { prompts, maxTokens, byGamma, repetitions, fastestGamma, completion, sampled } = tensors;
  const [promptHead, ...promptRows] = promptTable(tensors);
  return `<h2>The same text in fewer passes</h2>
<p>A small model guesses a few tokens ahead, the large one checks them all in one pass (speculative sampling, arXiv
2211.17192). ${prompts.length} prompts from files that neither model was trained on, up to ${maxTokens} tokens each,
temperature 0.</p>
${figure(completionPicture(tensors), `A completion at gamma ${completion.gamma}, from ${completion.prompt.source}. The prompt is grey.`)}
${figure(gammaPicture(speculation), `Above 1 is better. Speed: plain decoding's seconds over the method's on the same runner, medians of ${repetitions} interleaved runs.`)}
<p>${escaped(runnerRemark())}</p>
${figure(passCostPicture(speculation), "What decides in seconds: the flatter the line, the more guesses pay. Measured on this machine.")}
${tableHtml(
  "Figures by gamma",
  [
    "gamma",
    "tokens per pass",
    "multiply-adds ratio",
    "target passes",
    "accepted",
    "tensors: pass costs",
    "speed",
    "engine: pass costs",
    "speed",
    "identical",
  ],
  [
    ["plain", "1.00", "1.00", String(tensors.plain.targetPasses), "-", "1.00", "1.00", "1.00", "1.00", "-"],
    ...byGamma.map((one, i) => [
      String(one.gamma),
      one.tokensPerPass.toFixed(2),
      one.multiplyAddsRatio.toFixed(2),
      String(one.targetPasses),
      share(one.accepted, one.drafted),
      breakEven(tensors, one.gamma).toFixed(2),
      one.secondsRatio.toFixed(2),
      breakEven(engine, one.gamma).toFixed(2),
      engine.byGamma[i]!.secondsRatio.toFixed(2),
      yesNo(one.identical && engine.byGamma[i]!.identical),
    ]),
  ],
  { open: true },
)}
<p class="lead">Multiply-adds: target and draft together, over plain decoding's. Pass costs: one over as many tokens as a
step scores, in passes over one.</p>
${tableHtml(`Figures by prompt, gamma ${fastestGamma}, tensor decoder`, promptHead!, promptRows)}
${figure(positionPicture(tensors), "A guess is tested only when all guesses before it were accepted. Late guesses are offered, and paid for, far more often than they are reached.")}
${tableHtml(
  "Figures by position",
  ["guess", "offered", "tested", "accepted", "of tested", "of offered"],
  byGamma
    .at(-1)!
    .positions.map(({ offered, tested, accepted }, i) => [
      String(i + 1),
      String(offered),
      String(tested),
      String(accepted),
      share(accepted, tested),
      share(accepted, offered),
    ]),
)}
<h2>By chance, with the same law</h2>
<p>${escaped(sampledRemark(sampled))}</p>
<pre><span class="lead">${escaped(sampled.prompt.text)}</span>${sampled.pieces
    .map(({ text, author }) => `<span class="${author}">${escaped(text)}</span>`)
    .join("")}</pre>`;
}

function familySection(family: FamilyFigures): string {
  const { prompts, maxTokens, tensors, engine } = family;
  const sets = Object.entries(prompts).map(([set, count]) => `${count} ${set}`);
  const rows = [...tensors, ...engine];
  const identical = rows.filter((row) => row.identical).length;
  const speeds = [tensors, engine].map((all) => tableOf(all, ({ speedup }) => speedup));
  const tokens = tableOf(tensors, ({ tokensPerPass }) => tokensPerPass);
  return `<h2>Every technique beside the others</h2>
<p>The techniques of the family on the same prompts (${sets.join(", ")}; ${maxTokens} tokens each, temperature 0), with the
same numbers of guesses. Identical to plain decoding: <strong>${yesNo(identical === rows.length)}</strong>, ${identical} of
${rows.length} rows. <code>tokenthrift bench speculative</code> compares on more prompts, and when sampling.</p>
${figure(familyTokensPicture(family), "More guesses, more tokens from a pass: trees gain longer than chains, which end at their first wrong guess.")}
${figure(familySpeedPicture(family), "Where wide passes are cheap, tokens per pass turn into seconds as long as drafting is cheap too. On the engine every guess costs its arithmetic.")}
${tableHtml(
  "Figures by technique",
  [
    "technique",
    ...tokens.budgets.map((budget) => `tokens per pass, ${budget}`),
    ...tokens.budgets.map((budget) => `speed on tensors, ${budget}`),
    ...tokens.budgets.map((budget) => `on the engine, ${budget}`),
  ],
  tokens.lines.map(({ technique, values }, i) => [
    technique,
    ...[values, ...speeds.map(({ lines }) => lines[i]!.values)].flatMap((own) => own.map((value) => value.toFixed(2))),
  ]),
)}
${figure(acceptancePicture(family), "The draft's own probability says how likely a guess is to be kept: what trees that grow where the draft is sure live on.")}
${tableHtml(
  "Figures by the draft's probability",
  ["probability up to", "tested", "kept", "share kept"],
  family.acceptance.bins.map(({ tested, accepted }, i, bins) => [
    ((i + 1) / bins.length).toFixed(1),
    String(tested),
    String(accepted),
    share(accepted, tested),
  ]),
)}`;
}

function languageSection(figures: LanguageFigures | { readonly unavailable: string }): string {
  if ("unavailable" in figures) {
    return `<h2>What a token carries</h2>\n<p>Not measured: ${escaped(figures.unavailable)}</p>`;
  }
  const { vocabularies, languages, messages, source, missing } = figures;
  return `<h2>What a token carries</h2>
<p>${messages.toLocaleString("en-US")} messages that say the same in ${languages.length} languages (${escaped(source)}).
The embedded vocabulary was trained on English declarations: a script it has not seen falls apart into bytes.</p>
${figure(languagePicture(figures), "Longer bars: fewer tokens for the same bytes. Scripts differ in bytes for the same meaning, so the table also gives tokens relative to English.")}
${missing.map((reason) => `<p>Left out: ${escaped(reason)}</p>`).join("")}
${tableHtml(
  "Figures by language",
  [
    "language",
    "bytes",
    ...vocabularies.flatMap(({ name }) => [`${name}: tokens`, "bytes per token", "tokens / English"]),
  ],
  languages.map(({ name, bytes, byVocabulary }) => [
    name,
    bytes.toLocaleString("en-US"),
    ...byVocabulary.flatMap((v) => [
      v.tokens.toLocaleString("en-US"),
      v.bytesPerToken.toFixed(2),
      v.relativeToEnglish.toFixed(2),
    ]),
  ]),
)}`;
}

function dynamicTokenSection(figures: DynamicTokenFigures | { readonly unavailable: string }): string {
  if ("unavailable" in figures) {
    return `<h2>Tokens that follow the text</h2>\n<p>Not measured: ${escaped(figures.unavailable)}</p>`;
  }
  const { merging, sequences, prefixTokens, bytes } = figures;
  const names = Object.keys(merging);
  return `<h2>Tokens that follow the text</h2>
<p>The model is frozen; its tokens need not be. Commonest neighbours of a batch are merged (dynamic merging, arXiv 2411.18553),
and what a merged token looks like to the model is predicted from its pieces. ${sequences} prefixes of ${prefixTokens} tokens
of unseen declarations.</p>
${figure(mergingPicture(figures), "Rows saved in the prefix against bits per byte of what follows it, which is the model's own tokens. Zero is the unmerged prefix.")}
${tableHtml(
  "Figures by reduction",
  ["way to words", "rows", "merges", ...names],
  merging[names[0]!]!.map((step, i) => [
    `${step.reduction} %`,
    `${(100 * step.rows).toFixed(1)} %`,
    step.merges.toFixed(0),
    ...names.map((name) => `${(100 * merging[name]![i]!.loss).toFixed(2)} %`),
  ]),
)}
<p>A prompt that ends inside a token tells a tokenized model that the token ends there. Summing over all encodings that begin
with the prompt gives the exact law of the next byte (arXiv 2410.09303).</p>
${figure(cutPromptPicture(figures), "Prompts cut at every place inside a token; what each way of going on says of the token's rest.")}
${tableHtml(
  "Figures of cut prompts",
  ["way of going on", "bits per byte", "token completed", "model calls per byte"],
  bytes.continuations.map(({ name, inside, callsPerByte }) => [
    name,
    inside.bitsPerByte.toFixed(3),
    share(inside.greedyAccuracy * inside.prompts, inside.prompts),
    callsPerByte.toFixed(2),
  ]),
)}`;
}

function modelSection(figures: Figures): string {
  const { models } = figures;
  const [learning, bits] = [learningPicture(figures), bitsPicture(figures)];
  const rows = (["target", "draft"] as const).map((name) => {
    const { parameters, curve, bitsPerByte } = models[name];
    const last = curve.at(-1);
    return [
      name,
      parameters.toLocaleString("en-US"),
      last === undefined ? "-" : last.step.toLocaleString("en-US"),
      last === undefined ? "-" : last.validationLoss.toFixed(3),
      bitsPerByte.model === null ? "-" : bitsPerByte.model.toFixed(3),
    ];
  });
  return `<h2>The models</h2>
<p>Two decoders with one vocabulary of ${models.vocabularySize.toLocaleString("en-US")} tokens, trained by this project's
own code.</p>
${tableHtml("The pair", ["model", "parameters", "steps", "held-out nats per token", "held-out bits per byte"], rows, { open: true })}
${bits === undefined ? "<p>Bits per byte: none recorded with these checkpoints.</p>" : figure(bits, "What the held-out files cost, by predictor. File compressors see the held-out files alone; the 5-gram was trained on the models' text.")}
${learning === undefined ? "<p>Learning curves: none recorded with these checkpoints.</p>" : figure(learning, "Loss on held-out files while training.")}`;
}

function figure(svg: string, caption: string): string {
  return `<figure>\n${svg}\n<figcaption>${escaped(caption)}</figcaption>\n</figure>`;
}

function tableHtml(
  title: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { open = false }: { readonly open?: boolean } = {},
): string {
  // A column of words is set to the left, like the first.
  const words = head.map((_, c) => rows.every((row) => !/^[-\d.,%\s]*$|^(yes|NO)$/.test(row[c] ?? "")));
  const cell = (tag: string, text: string, c: number): string =>
    `<${tag}${tag === "th" ? ' scope="col"' : ""}${c > 0 && words[c] ? ' class="left"' : ""}>${escaped(text)}</${tag}>`;
  const line = (tag: string, row: readonly string[]): string =>
    `<tr>${row.map((text, c) => cell(tag, text, c)).join("")}</tr>`;
  return (
    `<details${open ? " open" : ""}><summary>${escaped(title)}</summary>\n<table>\n<thead>${line("th", head)}</thead>\n` +
    `<tbody>\n${rows.map((row) => line("td", row)).join("\n")}\n</tbody>\n</table></details>`
  );
}
