// Checks signed webhooks with the JavaScript library of Standard Webhooks, and Ed25519 signatures,
// which the library does not have, with the platform's cryptography.
//
// Reads one JSON object a line: {"key", "headers", "body"}. Writes a line for each: "verified",
// or "refused" and why.
const crypto = require("node:crypto");
const readline = require("node:readline");
const { Webhook } = require("standardwebhooks");

// SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410).
const SPKI = Buffer.from("302a300506032b6570032100", "hex");

function verifyEd25519(key, headers, body) {
    const raw = Buffer.from(key.slice("whpk_".length), "base64");
    const der = Buffer.concat([SPKI, raw]);
    const publicKey = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
    const message = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
    const found = headers["webhook-signature"]
        .split(" ")
        .filter((text) => text.startsWith("v1a,"))
        .some((text) => {
            const signature = Buffer.from(text.slice("v1a,".length), "base64");
            return crypto.verify(null, Buffer.from(message), publicKey, signature);
        });
    if (!found) throw new Error("no matching ed25519 signature");
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const { key, headers, body } = JSON.parse(line);
    try {
        if (key.startsWith("whpk_")) verifyEd25519(key, headers, body);
        else new Webhook(key).verify(body, headers);
        console.log("verified");
    } catch (error) {
        console.log(`refused ${error.message}`);
    }
});
