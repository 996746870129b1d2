// Follows one task with @stomp/stompjs as it is published: CONNECT, SUBSCRIBE, to the end, DISCONNECT.
// Arguments: folder of the unpacked package, URL, key, task. Prints what it saw as JSON.
const [folder, brokerURL, key, taskId] = process.argv.slice(2);
const { Client } = await import(`${folder}/package/esm6/index.js`);
const seen = { version: null, receipt: false, messages: [], errors: [], disconnected: false };
const client = new Client({
  brokerURL,
  connectHeaders: { Authorization: `Bearer ${key}` },
  reconnectDelay: 0,
  heartbeatIncoming: 1000,
  heartbeatOutgoing: 1000,
});

function finish() {
  console.log(JSON.stringify(seen));
  process.exit(0);
}

client.onConnect = frame => {
  seen.version = frame.headers.version;
  client.watchForReceipt('r1', () => { seen.receipt = true; });
  client.subscribe(`/topic/tasks/${taskId}`, async message => {
    const body = JSON.parse(message.body);
    seen.messages.push(body);
    message.ack();
    if (['COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED'].includes(body.status)) {
      client.onDisconnect = () => { seen.disconnected = true; };
      await client.deactivate();
      finish();
    }
  }, { receipt: 'r1', ack: 'client' });
};
client.onStompError = frame => { seen.errors.push(frame.body); finish(); };
client.activate();
setTimeout(finish, 30000);
