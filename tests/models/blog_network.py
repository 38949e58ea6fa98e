"""The widely copied ``AttentionUNet3D``, retyped with its structure and names, to compare with."""

import torch
from torch import nn


def _cbr(i, o):
    return [nn.Conv3d(i, o, 3, padding=1, bias=False), nn.BatchNorm3d(o), nn.ReLU(inplace=True)]


def _up(i, o):
    up = nn.ConvTranspose3d(i, o, 4, stride=2, padding=1)
    return [up, nn.BatchNorm3d(o), nn.ReLU(inplace=True)]


class _Encoder(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.encoder_block = nn.Sequential(*_cbr(i, o), *_cbr(o, o), *_cbr(o, o))

    def forward(self, x):
        return self.encoder_block(x)


class _Center(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.center_block = nn.Sequential(*_cbr(i, i * 2), *_cbr(i * 2, i * 2), *_up(i * 2, o))

    def forward(self, x):
        return self.center_block(x)


class _Decoder(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        m = i // 2
        self.decoder_block = nn.Sequential(*_cbr(i, m), *_cbr(m, m), *_up(m, o))

    def forward(self, x):
        return self.decoder_block(x)


class _Final(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        m = i // 2
        self.final_block = nn.Sequential(*_cbr(i, m), *_cbr(m, m), nn.Conv3d(m, o, 1, bias=False))

    def forward(self, x):
        return self.final_block(x)


class _Gate(nn.Module):
    def __init__(self, c, inner):
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv3d(c, inner, 1), nn.BatchNorm3d(inner))
        self.W_x = nn.Sequential(nn.Conv3d(c, inner, 1), nn.BatchNorm3d(inner))
        self.psi = nn.Sequential(nn.Conv3d(inner, 1, 1), nn.BatchNorm3d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g, x):
        return x * self.psi(self.relu(self.W_g(g) + self.W_x(x)))


class BlogAttentionUNet3D(nn.Module):
    def __init__(self, in_channels, out_channels, b=64):
        super().__init__()
        self.encoder1 = _Encoder(in_channels, b)
        self.encoder2 = _Encoder(b, 2 * b)
        self.encoder3 = _Encoder(2 * b, 4 * b)
        self.encoder4 = _Encoder(4 * b, 8 * b)
        self.center = _Center(8 * b, 8 * b)
        self.decoder4 = _Decoder(16 * b, 4 * b)
        self.decoder3 = _Decoder(8 * b, 2 * b)
        self.decoder2 = _Decoder(4 * b, b)
        self.final = _Final(2 * b, out_channels)
        self.att4 = _Gate(8 * b, 4 * b)
        self.att3 = _Gate(4 * b, 2 * b)
        self.att2 = _Gate(2 * b, b)
        self.att1 = _Gate(b, b // 2)
        self.maxpool = nn.MaxPool3d(2, 2)

    def forward(self, x):
        e1 = self.encoder1(x)
        e2 = self.encoder2(self.maxpool(e1))
        e3 = self.encoder3(self.maxpool(e2))
        e4 = self.encoder4(self.maxpool(e3))
        c = self.center(self.maxpool(e4))
        d4 = self.decoder4(torch.cat((c, self.att4(c, e4)), 1))
        d3 = self.decoder3(torch.cat((d4, self.att3(d4, e3)), 1))
        d2 = self.decoder2(torch.cat((d3, self.att2(d3, e2)), 1))
        return self.final(torch.cat((d2, self.att1(d2, e1)), 1))
