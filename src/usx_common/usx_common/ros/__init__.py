"""The one place where usx meets ROS: conversion, interface (QoS and validation), node support."""
