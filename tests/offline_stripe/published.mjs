// Prints, as JSON, the types that Stripe publishes for its API in stripe-node, read by TypeScript's
// own compiler: node published.mjs <folder of typescript> <folder of stripe>
//
// `version` is the API's, `kinds` are the interfaces of each value of `object`, `events` that of each
// type of event, `shapes` all of them and what they are made of: {fields: {name: {optional, type}}}. A type is
// "string", "number", "boolean", "null", "any", {enum: [...]}, {list: type}, {map: type},
// {shape: name} or {union: [types]}.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [typescriptFolder, stripeFolder] = process.argv.slice(2);
const ts = createRequire(import.meta.url)(join(typescriptFolder, "lib", "typescript.js"));
const resources = join(stripeFolder, "esm", "resources");
const files = readdirSync(resources, { recursive: true })
  .filter((name) => name.endsWith(".d.ts") && !name.startsWith("V2"))
  .map((name) => join(resources, name));
const program = ts.createProgram(files, { strict: true, skipLibCheck: true, types: [] });
const checker = program.getTypeChecker();
const shapes = {};
const names = new Map();

function is(type, flag) {
  return (type.flags & flag) !== 0;
}

function typeOf(type) {
  if (type.isUnion()) return unionOf(type.types);
  if (type.isIntersection()) return "string"; // OtherString: `string & {}`
  if (type.isStringLiteral()) return { enum: [type.value] };
  if (is(type, ts.TypeFlags.StringLike)) return "string";
  if (is(type, ts.TypeFlags.NumberLike)) return "number";
  if (is(type, ts.TypeFlags.BooleanLike)) return "boolean";
  if (is(type, ts.TypeFlags.Null)) return "null";
  if (is(type, ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return "any";
  const name = type.symbol?.name;
  if (name === "Decimal") return "string"; // the library's own class for what arrives as text
  if (checker.isArrayType(type)) return { list: typeOf(checker.getTypeArguments(type)[0]) };
  const values = checker.getIndexTypeOfType(type, ts.IndexKind.String);
  if (values) return { map: typeOf(values) };
  return { shape: shapeOf(type) };
}

function unionOf(types) {
  // A union with `OtherString` lists the values of this version; the rest of it is for later ones.
  const words = types.filter((each) => each.isStringLiteral()).map((each) => each.value);
  const isOpen = (each) => each.isIntersection() && words.length > 0;
  const others = types.filter(
    (each) => !each.isStringLiteral() && !isOpen(each) && !is(each, ts.TypeFlags.Undefined),
  );
  const found = new Map(others.map(typeOf).map((each) => [JSON.stringify(each), each]));
  const union = [...(words.length ? [{ enum: words }] : []), ...found.values()];
  return union.length === 1 ? union[0] : { union };
}

function shapeOf(type) {
  if (names.has(type)) return names.get(type);
  const name = `${checker.typeToString(type)}#${names.size}`;
  names.set(type, name);
  const fields = {};
  shapes[name] = { fields };
  for (const property of checker.getPropertiesOfType(type)) {
    const optional = (property.flags & ts.SymbolFlags.Optional) !== 0;
    fields[property.name] = { optional, type: typeOf(checker.getTypeOfSymbol(property)) };
  }
  return name;
}

function fieldOf(type, name) {
  const property = checker.getPropertyOfType(type, name);
  return property && checker.getTypeOfSymbol(property);
}

const kinds = {};
const events = {};
for (const file of files) {
  for (const statement of program.getSourceFile(file).statements) {
    if (!ts.isInterfaceDeclaration(statement) || statement.name.text.endsWith("Params")) continue;
    const type = checker.getTypeAtLocation(statement);
    const kind = fieldOf(type, "object");
    const eventType = fieldOf(type, "type");
    if (!kind?.isStringLiteral()) continue;
    if (kind.value !== "event") (kinds[kind.value] ??= []).push(shapeOf(type));
    else if (eventType?.isStringLiteral()) events[eventType.value] = shapeOf(type);
  }
}
const { ApiVersion } = await import(join(stripeFolder, "esm", "apiVersion.js"));
process.stdout.write(JSON.stringify({ version: ApiVersion, kinds, events, shapes }));
